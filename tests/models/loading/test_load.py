"""Pretrained models as people have them: a folder, a hub id, one file, and what may be put in place of their parts."""

import json
import shutil

import pytest
import torch
from comfyui_rollout.models.families import PRETRAINED
from comfyui_rollout.models.loading.load import load_parts, load_text_encoder, number_format
from comfyui_rollout.models.loading.recognise import encoders_of, inspect
from comfyui_rollout.models.loading.single_file import default_base, family_of_file
from comfyui_rollout.models.loading.source import Source
from loaded import NETWORK_FILE, equal, network, parts
from original_names import clip, ideogram4, ldm_vae, write, write_header
from safetensors.torch import load_file, save_file

FAMILIES = sorted(PRETRAINED)


# ---- folders


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_is_loaded_as_diffusers_loads_it(tiny_pipeline, pipeline_of, family):
    """Network, encoders and VAE, each for itself, in the number format that was asked for."""
    source = Source(str(tiny_pipeline(family)), storage="fp32")
    info = inspect(source)
    wanted = pipeline_of(family)
    assert (info.family, info.classes) == (family, 1000 if family == "dit" else 0)
    assert equal(network(source), wanted.components[info.kind.network_part])
    loaded = parts(source)
    for name in ("vae", *encoders_of(info.kind)):
        assert equal(loaded.components[name], wanted.components[name])
    half = Source(str(tiny_pipeline(family)), storage="fp16")
    assert network(half).dtype == torch.float16
    assert parts(half, "vae").vae.dtype == torch.float16


def test_only_what_is_asked_for_is_loaded(tiny_pipeline):
    """Text encoders without a VAE, and the other way round; a live network is taken as it is."""
    source = Source(str(tiny_pipeline("sdxl")))
    info = inspect(source)
    texts = load_parts(source, info, info.kind.text_parts)
    assert texts.vae is None
    assert texts.text_encoder_2 is not None
    assert not isinstance(texts.unet, torch.nn.Module)
    assert texts.unet.config.in_channels == 4
    live = network(source)
    images = load_parts(source, info, ["vae"], unet=live)
    assert images.unet is live
    assert images.text_encoder is None


def test_half_precision_files_are_found(tiny_pipeline):
    """A folder whose files are called *.fp16.safetensors, as many keep them to save disk."""
    folder = tiny_pipeline("sd", variant="fp16")
    assert [path.name for path in (folder / "unet").glob("*.safetensors")] == [
        "diffusion_pytorch_model.fp16.safetensors"
    ]
    source = Source(str(folder), storage="fp32")
    stored = load_file(folder / "unet" / "diffusion_pytorch_model.fp16.safetensors")
    assert all(torch.equal(value, stored[name].float()) for name, value in network(source).state_dict().items())
    assert parts(source).text_encoder is not None


def test_loading_says_nothing(tiny_pipeline, capfd):
    """Neither bars nor warnings, also for captions that are too long."""
    source = Source(str(tiny_pipeline("sd3")))
    network(source)
    PRETRAINED["sd3"].encode_captions(parts(source), ["a very long caption indeed, of many words" * 9])
    assert capfd.readouterr() == ("", "")


def test_gradient_checkpointing_is_switched_on(tiny_pipeline):
    assert network(Source(str(tiny_pipeline("flux")), gradient_checkpointing=True)).is_gradient_checkpointing
    assert not network(Source(str(tiny_pipeline("flux")))).is_gradient_checkpointing


# ---- one file


@pytest.mark.parametrize(
    ("family", "inside"), [("sd", ("vae", "text_encoder")), ("sd", ()), ("sdxl", ("vae",)), ("sdxl", ()), ("sd3", ())]
)
def test_a_single_file_is_the_pipeline_it_was_made_from(single_file, tiny_pipeline, pipeline_of, family, inside):
    """Bit for bit, whether the file holds all or the network only; what it lacks comes from base."""
    source = Source(str(single_file(family, *inside)), base=str(tiny_pipeline(family)), storage="fp32")
    info, wanted = inspect(source), pipeline_of(family)
    assert info == inspect(Source(str(tiny_pipeline(family))))
    assert equal(network(source), wanted.components[info.kind.network_part])
    loaded = parts(source)
    for name in ("vae", *encoders_of(info.kind)):
        assert equal(loaded.components[name], wanted.components[name])


def test_parts_of_a_file_go_before_those_of_its_base(single_file, tiny_pipeline, tmp_path):
    """A checkpoint with a fine-tuned VAE and text encoder is used with these."""
    path = single_file("sd", "vae", "text_encoder")
    weights = load_file(path)
    for name in (
        "first_stage_model.decoder.conv_in.bias",
        "cond_stage_model.transformer.text_model.final_layer_norm.bias",
    ):
        weights[name] += 1
    save_file(weights, path)
    loaded = parts(Source(str(path), base=str(tiny_pipeline("sd")), storage="fp32"))
    own = parts(Source(str(tiny_pipeline("sd")), storage="fp32"))
    assert torch.allclose(loaded.vae.decoder.conv_in.bias, own.vae.decoder.conv_in.bias + 1)
    name = next(name for name in own.text_encoder.state_dict() if name.endswith("final_layer_norm.bias"))
    assert torch.allclose(loaded.text_encoder.state_dict()[name], own.text_encoder.state_dict()[name] + 1)


@pytest.mark.parametrize(("family", "inside"), [("sd", ("text_encoder",)), ("sd", ()), ("sdxl", ())])
def test_text_encoders_are_loaded_without_their_tokenizers(single_file, tiny_pipeline, pipeline_of, family, inside):
    """For training them: from the file, or from its base where the file has none."""
    source = Source(str(single_file(family, *inside)), base=str(tiny_pipeline(family)), storage="fp32")
    kind = inspect(source).kind
    loaded = load_parts(source, inspect(source), kind.trainable_text_parts)
    assert loaded.tokenizer is None
    for name in kind.trainable_text_parts:
        assert equal(loaded.components[name], pipeline_of(family).components[name])


def test_longcat_image_is_told_from_flux_by_its_header(tmp_path):
    """By what reads CLIP, which it has not; FLUX.1 schnell has."""
    names = {"double_blocks.0.img_attn.norm.key_norm.scale": (128,), "img_in.weight": (3072, 64)}
    path = write_header(tmp_path / "longcat.safetensors", **names)
    assert family_of_file(str(path)) == "longcat_image"
    assert default_base(str(path)) == "meituan-longcat/LongCat-Image"
    path = write_header(tmp_path / "schnell.safetensors", **names, **{"vector_in.in_layer.weight": (3072, 768)})
    assert family_of_file(str(path)) == "flux"


# ---- other parts


@pytest.mark.parametrize("form", ["file", "folder"])
def test_another_vae(tiny_pipeline, tmp_path, form):
    """In place of the pipeline's own: a file in its repository's names, or a folder."""
    own = parts(Source(str(tiny_pipeline("sd")), storage="fp32"), "vae").vae
    with torch.no_grad():
        own.decoder.conv_in.bias += 1
    if form == "file":
        place = write(tmp_path / "other.safetensors", ldm_vae(own, prefix=""))
    else:
        place = tmp_path / "other"
        own.save_pretrained(place)
    assert equal(parts(Source(str(tiny_pipeline("sd")), vae=str(place), storage="fp32"), "vae").vae, own)


@pytest.mark.parametrize("family", ["sd", "sdxl", "sd3", "flux"])
def test_other_text_encoders(tiny_pipeline, tmp_path, family):
    """ComfyUI's files, in the pipeline's order, take the place of the pipeline's own; T5's names are transformers'."""
    own = parts(Source(str(tiny_pipeline(family)), storage="fp32"))
    files, encoders = [], encoders_of(PRETRAINED[family])
    for name in encoders:
        encoder = own.components[name]
        with torch.no_grad():
            next(encoder.parameters()).add_(1)
        is_clip = "CLIP" in type(encoder).__name__
        weights = clip(encoder) if is_clip else {**encoder.state_dict()}
        weights.pop("encoder.embed_tokens.weight", None)  # the same as shared.weight, which the real files keep once
        files.append(str(write(tmp_path / f"{name}.safetensors", weights)))
    loaded = parts(Source(str(tiny_pipeline(family)), text_encoders=tuple(files), storage="fp32"))
    assert all(equal(loaded.components[name], own.components[name]) for name in encoders)
    only_first = parts(Source(str(tiny_pipeline(family)), text_encoders=tuple(files[:1]), storage="bf16"))
    assert only_first.text_encoder.dtype == torch.bfloat16
    for name in encoders[1:]:
        assert not equal(only_first.components[name].float(), own.components[name])


def test_hidreams_folder_may_lack_llama(tiny_pipeline, tmp_path, monkeypatch):
    """As the hub has it: it is read from elsewhere, with its tokenizer, and the rest from here."""
    from comfyui_rollout.models.families import hidream

    whole = tiny_pipeline("hidream")
    own = parts(Source(str(whole), storage="fp32"))
    folder, llama = shutil.copytree(whole, tmp_path / "hidream"), tmp_path / "llama"
    index = json.loads((folder / "model_index.json").read_text())
    for name in ("text_encoder_4", "tokenizer_4"):
        shutil.move(folder / name, llama / name)
        index.pop(name)
    (folder / "model_index.json").write_text(json.dumps(index))
    monkeypatch.setattr(hidream, "LLAMA", str(llama))
    loaded = parts(Source(str(folder), storage="fp32"))
    assert all(equal(loaded.components[name], own.components[name]) for name in encoders_of(PRETRAINED["hidream"]))
    assert parts(Source(str(folder)), "vae").text_encoder_4 is None
    path = str(write(tmp_path / "llama.safetensors", {"a": torch.zeros(1)}))
    with pytest.raises(ValueError, match=r"^text_encoders: the folder 'hidream' has no text_encoder_4 whose settings"):
        load_text_encoder(Source(str(folder)), PRETRAINED["hidream"], folder, "text_encoder_4", path)


def test_a_folder_by_other_names_is_refused(tiny_pipeline, tmp_path):
    """As Ideogram 4's own in fp8: diffusers would leave what it does not find at random, and say so in a log only."""
    whole = tiny_pipeline("ideogram4")
    weights = ideogram4(network(Source(str(whole), storage="fp32")))
    folder = shutil.copytree(whole, tmp_path / "original")
    write(folder / "transformer" / NETWORK_FILE, weights)
    with pytest.raises(ValueError, match=r"original' lacks \d+ of \d+ tensors of its transformer, e.g. layers.0.att"):
        inspect(Source(str(folder)))


def test_a_processor_of_pictures_is_not_needed_to_read_text(tiny_pipeline, tmp_path):
    """FLUX.2 dev has one in place of its tokenizer, which transformers loads with torchvision only."""
    folder = shutil.copytree(tiny_pipeline("flux2_dev"), tmp_path / "dev")
    index = json.loads((folder / "model_index.json").read_text()) | {"tokenizer": ["transformers", "PixtralProcessor"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    told = [
        PRETRAINED["flux2_dev"].encode_captions(parts(Source(str(path), storage="fp32")), ["a cat"])
        for path in (folder, tiny_pipeline("flux2_dev"))
    ]
    assert torch.equal(told[0]["text"], told[1]["text"])


@pytest.mark.parametrize("whole", [True, False])
def test_what_reads_text_in_a_file_of_mistral_is_enough(tiny_pipeline, tmp_path, whole):
    """ComfyUI's file of FLUX.2's text encoder has no sight and shorter names; one without a layer is refused."""
    folder = str(tiny_pipeline("flux2_dev"))
    own = parts(Source(folder, storage="fp32")).text_encoder.state_dict()
    start = "model.language_model."
    weights = {name.replace(start, "model."): value + 1 for name, value in own.items() if name.startswith(start)}
    if not whole:
        weights = {name: value for name, value in weights.items() if ".30." not in name}
    source = Source(folder, text_encoders=(str(write(tmp_path / "mistral.safetensors", weights)),), storage="fp32")
    if not whole:
        with pytest.raises(ValueError, match=r"does not fit text_encoder: it lacks \d+ tensors, e.g. .*layers\.30\."):
            parts(source)
        return
    found = parts(source).text_encoder.state_dict()
    assert all(torch.equal(found[name], own[name] + 1) for name in own if name.startswith(start))


def test_text_encoders_that_do_not_fit_are_refused(tiny_pipeline, tmp_path):
    """Too many, missing, and of another network: each in one line that names the input."""
    folder = str(tiny_pipeline("sd"))
    wrong = str(write(tmp_path / "wrong.safetensors", {"shared.weight": torch.zeros(3, 3)}))
    with pytest.raises(ValueError, match=r"text_encoders: Stable Diffusion 1.x / 2.x has 1, and 2 are named"):
        inspect(Source(folder, text_encoders=(wrong, wrong)))
    with pytest.raises(ValueError, match=r"the file 'nowhere.safetensors' does not exist"):
        inspect(Source(folder, text_encoders=("nowhere.safetensors",)))
    with pytest.raises(ValueError, match=r"text_encoders: .*wrong.safetensors' does not fit text_encoder: it lacks 36"):
        parts(Source(folder, text_encoders=(wrong,)))
    scaled = str(write(tmp_path / "scaled.safetensors", {"a.weight_scale": torch.zeros(4, 2)}))
    with pytest.raises(ValueError, match="is squeezed with a scale for every few weights"):
        inspect(Source(folder, text_encoders=(scaled,)))


def test_weights_that_do_not_load_are_one_line(tiny_pipeline, tmp_path):
    """diffusers' complaint, with the model's name before it."""
    folder = tmp_path / "cut"
    shutil.copytree(tiny_pipeline("sd"), folder)
    with (folder / "unet" / NETWORK_FILE).open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(ValueError, match=r"the model .*cut' cannot be loaded|damaged or cut short") as caught:
        network(Source(str(folder)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("version", "name"), [("0.36.0", "torch_dtype"), ("0.40.0", "dtype"), ("0.42.1", "dtype")])
def test_the_number_format_goes_by_diffusers_word_for_it(monkeypatch, version, name):
    import diffusers

    monkeypatch.setattr(diffusers, "__version__", version)
    assert number_format(torch.bfloat16) == {name: torch.bfloat16}
