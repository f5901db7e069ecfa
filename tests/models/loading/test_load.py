"""Pretrained models as people have them: a folder, a hub id, one file, and what may be put in place of their parts."""

import json
import shutil
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from comfyui_rollout.diffusion.schedules import DDPM, FlowMatching
from comfyui_rollout.models.adapters.names import names_of
from comfyui_rollout.models.families import PRETRAINED
from comfyui_rollout.models.loading.load import load_network, load_parts, load_text_encoder, number_format
from comfyui_rollout.models.loading.network_file import readable_names
from comfyui_rollout.models.loading.pretrained import Pretrained
from comfyui_rollout.models.loading.recognise import encoders_of, inspect, schedule_of
from comfyui_rollout.models.loading.single_file import default_base, family_of_file
from comfyui_rollout.models.loading.source import Source
from diffusers import LongCatImageTransformer2DModel
from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES
from original_names import anima, clip, ideogram4, ldm_unet, ldm_vae, sd3, write, write_header
from safetensors.torch import load_file, save_file
from tiny_pipelines import unread

FAMILIES = sorted(PRETRAINED)
NEWER = f"Stable Diffusion 3.* needs diffusers 99.9 or newer, and {version('diffusers')} is installed: pip install .*"
NETWORK_FILE = "diffusion_pytorch_model.safetensors"


def equal(one, other):
    """Whether two networks have the same weights, bit for bit."""
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def parts(source, *names):
    info = inspect(source)
    return load_parts(source, info, names or ["vae", *info.kind.text_parts])


def network(source):
    return load_network(source, inspect(source), "cpu").network


@pytest.fixture
def pipeline_of(tiny_pipeline):
    """``pipeline_of(family)``: diffusers' own loading of the whole tiny pipeline, as what ours is compared to."""
    import diffusers

    def load(family, **options):
        kind = PRETRAINED[family]
        loader, folder = getattr(diffusers, kind.pipeline_class), tiny_pipeline(family, **options)
        if issubclass(loader, diffusers.ModularPipeline):
            pipeline = loader.from_pretrained(folder)
            pipeline.load_components()
            return pipeline
        return loader.from_pretrained(folder, use_safetensors=True, **unread(kind))

    return load


@pytest.fixture
def changed(tiny_pipeline, tmp_path):
    """``changed(family, "unet/config.json", key=value)``: a copy of a tiny pipeline, with other settings."""

    def copy(family, file, **values):
        folder = tmp_path / "changed"
        shutil.copytree(tiny_pipeline(family), folder)
        settings = {**json.loads((folder / file).read_text()), **values}
        (folder / file).write_text(json.dumps(settings))
        return Source(str(folder))

    return copy


@pytest.fixture
def single_file(pipeline_of, tmp_path):
    """``single_file(family, *parts)``: the family's checkpoint in one file, named as its own repository does."""

    def make(family, *names, **marks):
        pipeline = pipeline_of(family)
        weights = sd3(pipeline.transformer) if family == "sd3" else ldm_unet(pipeline.unet)
        extra = {
            "vae": lambda: ldm_vae(pipeline.vae),
            "text_encoder": lambda: clip(pipeline.text_encoder, "cond_stage_model.transformer."),
        }
        return write(tmp_path / f"{family}.safetensors", weights, *(extra[name]() for name in names), **marks)

    return make


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


# ---- the hub


def test_a_hub_id_is_found_in_the_cache(tiny_pipeline, tmp_path, monkeypatch):
    """As huggingface_hub keeps it: what was downloaded once needs no network."""
    from huggingface_hub import constants

    cache = tmp_path / "hub" / "models--somebody--tiny"
    shutil.copytree(tiny_pipeline("sd"), cache / "snapshots" / "abc")
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("abc")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    source = Source("somebody/tiny", storage="fp32")
    assert equal(network(source), network(Source(str(tiny_pipeline("sd")), storage="fp32")))
    assert parts(source).text_encoder is not None
    assert Pretrained(source, inspect(source)).weights()["unet"] > 0


def test_a_hub_id_that_cannot_be_fetched_is_one_line(tmp_path, monkeypatch):
    """Offline, gated or misspelt: the line says which model, that it is not here, and what to do."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=r"'somebody/tiny' is not here, .* Put a model into") as caught:
        inspect(Source("somebody/tiny"))
    assert "\n" not in str(caught.value)


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


@pytest.mark.parametrize(
    "family",
    [
        "flux",
        "lumina2",
        "sd3",
        "zimage",
        "flux2_dev",
        "flux2_klein",
        "qwen_image",
        "chroma",
        "longcat_image",
        "krea2",
        "ideogram4",
        "anima",
        "ernie_image",
        "hidream",
    ],
)
def test_a_network_in_diffusers_names_is_loaded(tiny_pipeline, tmp_path, family):
    """Such files lie in diffusion_models; base says whose they are."""
    path = tmp_path / "network.safetensors"
    shutil.copy(tiny_pipeline(family) / "transformer" / NETWORK_FILE, path)
    source = Source(str(path), base=str(tiny_pipeline(family)), storage="fp32")
    assert inspect(source).family == family
    assert equal(network(source), network(Source(str(tiny_pipeline(family)), storage="fp32")))


@pytest.mark.parametrize("prefix", ["transformer.", "diffusion_model.", "model.diffusion_model."])
@pytest.mark.parametrize("family", ["flux", "lumina2", "sd3"])
def test_prefixes_before_diffusers_names_are_known(tiny_pipeline, tmp_path, family, prefix):
    """As trainers and converters write them: failed at step 0, after everything was encoded."""
    folder = tiny_pipeline(family)
    weights = load_file(folder / "transformer" / NETWORK_FILE)
    path = write(tmp_path / "network.safetensors", {f"{prefix}{name}": value for name, value in weights.items()})
    source = Source(str(path), base=str(folder), storage="fp32")
    assert equal(network(source), network(Source(str(folder), storage="fp32")))


@pytest.mark.parametrize("prefix", ["", "diffusion_model.", "model.diffusion_model."])
def test_ideogram4_is_read_by_its_own_names(tiny_pipeline, tmp_path, prefix):
    """diffusers has no converter for them; most are as its own, so that they could be taken for those."""
    folder = tiny_pipeline("ideogram4")
    own = network(Source(str(folder), storage="fp32"))
    weights = {f"{prefix}{name}": value for name, value in ideogram4(own).items()}
    path = write(tmp_path / "network.safetensors", weights)
    assert equal(network(Source(str(path), base=str(folder), storage="fp32")), own)
    weights.pop(f"{prefix}layers.1.attention.o.weight")
    with pytest.raises(ValueError, match=r"of \d+ tensors 1 are missing .*, e.g. layers.1.attention.to_out.0.weight"):
        inspect(Source(str(write(tmp_path / "cut.safetensors", weights)), base=str(folder)))


@pytest.mark.parametrize("prefix", ["", "net.", "model.diffusion_model."])
def test_anima_is_read_with_what_makes_its_text(tiny_pipeline, tmp_path, prefix):
    """Its file holds both, by the names of Cosmos; what has neither an own file nor a place in it comes from base."""
    folder = str(tiny_pipeline("anima"))
    own, conditioner = network(Source(folder, storage="fp32")), parts(Source(folder), "text_conditioner")
    with torch.no_grad():
        conditioner.text_conditioner.float().out_proj.bias += 1
        own.proj_out.weight += 1
    path = write(tmp_path / "anima.safetensors", anima(own, conditioner.text_conditioner, prefix))
    source = Source(str(path), base=folder, storage="fp32")
    assert inspect(source).family == "anima"
    assert equal(network(source), own)
    loaded = parts(source)
    assert equal(loaded.text_conditioner, conditioner.text_conditioner)
    assert equal(loaded.text_encoder, parts(Source(folder, storage="fp32")).text_encoder)
    assert Pretrained(source, inspect(source)).weights()["text_conditioner"] > 0


LONGCAT = {
    "in_channels": 64, "num_layers": 2, "num_single_layers": 2, "attention_head_dim": 128, "num_attention_heads": 24,
    "joint_attention_dim": 3584, "pooled_projection_dim": 3584, "axes_dims_rope": [16, 56, 56],
}  # fmt: skip
"""Of the real width, for which alone diffusers converts FLUX.1's names."""


def rows_of(network, layer):
    """A layer's weight or bias of which each row has a number of its own; its columns take no memory."""
    kind, shape = layer.rpartition(".")[2], network.state_dict()[layer].shape
    start = 10 * (sum(layer.removesuffix(f".{kind}").encode()) % 997)
    numbers = torch.arange(shape[0], dtype=torch.float32) + start
    return numbers.view(-1, *[1] * (len(shape) - 1)).expand(shape)


def first_column(weight):
    return weight[:, :1] if weight.ndim > 1 else weight


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_longcat_image_is_read_by_its_original_names(prefix):
    """ComfyUI's file has FLUX.1's, less those of CLIP: q, k and v in one, and the last shift before its scale."""
    with torch.device("meta"):
        live = LongCatImageTransformer2DModel(**LONGCAT)
    names = names_of(type(live).__name__, LONGCAT)
    original = {}
    for joined, layers in names.groups.items():
        for kind in ("weight", "bias"):
            value = torch.cat([first_column(rows_of(live, f"{layer}.{kind}")) for layer in layers])
            value = torch.cat(value.chunk(2)[::-1]) if names.turned(layers[0]) else value
            original[f"{prefix}{joined}.{kind}"] = value
    norms = {"query_norm": "norm_q", "key_norm": "norm_k"}
    for block in range(2):
        for theirs, ours in norms.items():
            places = {f"double_blocks.{block}.img_attn": f"transformer_blocks.{block}.attn.{ours}"}
            places |= {
                f"double_blocks.{block}.txt_attn": f"transformer_blocks.{block}.attn.{ours.replace('_', '_added_')}"
            }
            places |= {f"single_blocks.{block}": f"single_transformer_blocks.{block}.attn.{ours}"}
            for there, here in places.items():
                original[f"{prefix}{there}.norm.{theirs}.scale"] = rows_of(live, f"{here}.weight")
    with readable_names(PRETRAINED["longcat_image"]):
        convert = SINGLE_FILE_LOADABLE_CLASSES["LongCatImageTransformer2DModel"]["checkpoint_mapping_fn"]
        found = convert(checkpoint=dict(original), config=LONGCAT)
    assert found.keys() == live.state_dict().keys()
    for name, value in found.items():
        assert torch.equal(value, first_column(rows_of(live, name))), name


def test_longcat_image_is_told_from_flux_by_its_header(tmp_path):
    """By what reads CLIP, which it has not; FLUX.1 schnell has."""
    names = {"double_blocks.0.img_attn.norm.key_norm.scale": (128,), "img_in.weight": (3072, 64)}
    path = write_header(tmp_path / "longcat.safetensors", **names)
    assert family_of_file(str(path)) == "longcat_image"
    assert default_base(str(path)) == "meituan-longcat/LongCat-Image"
    path = write_header(tmp_path / "schnell.safetensors", **names, **{"vector_in.in_layer.weight": (3072, 768)})
    assert family_of_file(str(path)) == "flux"


@pytest.mark.parametrize("start", ["model.", "model.language_model."])
def test_ideogram4_reads_with_files_of_comfyui(tiny_pipeline, tmp_path, start):
    """What reads text alone, and all of Qwen3-VL, by their names."""
    folder = str(tiny_pipeline("ideogram4"))
    own = parts(Source(folder, storage="fp32"), "text_encoder").text_encoder
    with torch.no_grad():
        own.language_model.embed_tokens.weight += 1
    weights = {start + name: value for name, value in own.language_model.state_dict().items()}
    weights["lm_head.weight"] = own.language_model.embed_tokens.weight.data
    path = write(tmp_path / "encoder.safetensors", weights)
    loaded = parts(Source(folder, text_encoders=(str(path),), storage="fp32"), "text_encoder").text_encoder
    assert equal(loaded.language_model, own.language_model)


@pytest.mark.parametrize("inside", [True, False], ids=["original", "diffusers"])
@pytest.mark.parametrize("change", ["missing", "size", "foreign"])
def test_a_file_without_the_whole_network_is_refused_at_once(single_file, tiny_pipeline, tmp_path, inside, change):
    """From its header, and a tensor is named: nothing is loaded or encoded before that is known."""
    for family in ("sd3", "sd", "sdxl"):
        folder = tiny_pipeline(family)
        file = single_file(family) if inside else folder / PRETRAINED[family].network_part / NETWORK_FILE
        weights = load_file(file)
        name = next(name for name in weights if "blocks.1." in name and name.endswith("weight"))
        value = weights.pop(name)
        if change != "missing":
            weights |= {name: value[:1].clone()} if change == "size" else {f"strange.{name}": value}
        path = write(tmp_path / f"{family}.safetensors", weights)
        with pytest.raises(
            ValueError, match=rf"the file .*{family}\.safetensors' is (not the|no) whole .*copy the file"
        ) as found:
            inspect(Source(str(path), base=str(folder)))
        assert "\n" not in str(found.value)


def test_a_file_and_its_base_must_be_of_one_family(single_file, tiny_pipeline):
    source = Source(str(single_file("sdxl")), base=str(tiny_pipeline("flux")))
    with pytest.raises(ValueError, match=r"base: .* is FLUX.1, and the file .* is Stable Diffusion XL"):
        inspect(source)


def test_a_v_prediction_file_says_so(single_file, tiny_pipeline):
    """SDXL's carry the marks that ComfyUI goes by; the node's own choice goes before them."""
    source = Source(str(single_file("sdxl", v_pred=1, ztsnr=1)), base=str(tiny_pipeline("sdxl")))
    assert inspect(source).schedule == DDPM(prediction="v_prediction", zero_terminal_snr=True)
    source = Source(str(single_file("sdxl", v_pred=1)), base=str(tiny_pipeline("sdxl")), prediction="epsilon")
    assert inspect(source).schedule == DDPM()


def test_a_file_of_stable_diffusion_2_must_be_told_its_prediction(tiny_pipeline, tmp_path, monkeypatch):
    """Base models predict epsilon, the others v, and no tensor tells them apart: a guess would train the wrong one."""
    shapes = {
        "input_blocks.0.0.weight": (320, 4, 3, 3),
        "input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight": (320, 1024),
    }
    names = {f"model.diffusion_model.{name}": shape for name, shape in shapes.items()}
    source = Source(str(write_header(tmp_path / "v2.safetensors", **names)))
    with pytest.raises(ValueError, match=r"prediction: the file .*v2.safetensors' does not say .* choose epsilon"):
        inspect(source)
    monkeypatch.setattr("comfyui_rollout.models.loading.recognise.check_network", lambda *where: None)  # a header only
    monkeypatch.setattr("comfyui_rollout.models.loading.source.default_base", lambda path: str(tiny_pipeline("sd")))
    for prediction in ("epsilon", "v_prediction"):
        assert inspect(replace(source, prediction=prediction)).schedule.prediction == prediction
    assert inspect(replace(source, base=str(tiny_pipeline("sd")))).schedule.prediction == "epsilon"


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


# ---- what is refused


@pytest.mark.parametrize("part", ["text_encoder", "tokenizer", "vae"])
def test_a_folder_that_lacks_a_part_says_which(tiny_pipeline, tmp_path, part):
    """Half a download is told in one line when the part is needed; who has encoded everything needs none of them."""
    folder = shutil.copytree(tiny_pipeline("sd"), tmp_path / "half")
    shutil.rmtree(folder / part)
    with pytest.raises(ValueError, match=f"half' lacks {part}: get its folder whole") as refusal:
        parts(Source(str(folder)))
    assert "\n" not in str(refusal.value)
    assert inspect(Source(str(folder))).family == "sd"


@pytest.mark.parametrize("suffix", ["ckpt", "bin", "pt", "CKPT"])
def test_pickled_files_are_refused(tmp_path, suffix):
    """They are not opened at all, and the line says why."""
    path = tmp_path / f"model.{suffix}"
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="is a pickled file, which can run any code when it is opened"):
        inspect(Source(str(path)))


def test_a_folder_of_pickled_weights_is_refused(tiny_pipeline, tmp_path):
    folder = tmp_path / "old"
    shutil.copytree(tiny_pipeline("sd"), folder)
    (folder / "unet" / NETWORK_FILE).rename(folder / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(ValueError, match=r"diffusion_pytorch_model.bin' is a pickled file"):
        inspect(Source(str(folder)))


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("StableDiffusionInpaintPipeline", "is an inpainting model, whose extra inputs"),
        ("FluxFillPipeline", "is an inpainting model"),
        ("StableDiffusionXLImg2ImgPipeline", "is the refiner of Stable Diffusion XL"),
        ("LTXPipeline", "is a LTXPipeline, and we can train Stable Diffusion 1.x"),
    ],
)
def test_pipelines_of_another_purpose_are_refused(changed, name, line):
    with pytest.raises(ValueError, match=line):
        inspect(changed("sd", "model_index.json", _class_name=name))


def test_an_inpainting_network_is_refused(changed):
    """Also where its pipeline does not say so."""
    with pytest.raises(ValueError, match="it takes 9 channels and gives 4"):
        inspect(changed("sd", "unet/config.json", in_channels=9))


@pytest.mark.parametrize("path", ["nowhere", "nowhere/at/all", "~/nowhere/at/all"])
def test_what_is_not_there_is_named(path):
    with pytest.raises(ValueError, match=r"does not exist: give a folder, a .safetensors file or a hub id"):
        inspect(Source(path))


def test_a_folder_that_is_no_pipeline_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"is not a pipeline's folder: it has no model_index.json"):
        inspect(Source(str(tmp_path)))


def test_weights_that_do_not_load_are_one_line(tiny_pipeline, tmp_path):
    """diffusers' complaint, with the model's name before it."""
    folder = tmp_path / "cut"
    shutil.copytree(tiny_pipeline("sd"), folder)
    with (folder / "unet" / NETWORK_FILE).open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(ValueError, match=r"the model .*cut' cannot be loaded|damaged or cut short") as caught:
        network(Source(str(folder)))
    assert "\n" not in str(caught.value)


# ---- schedules


def test_schedules_are_read_from_the_settings(changed):
    """DDPM's tables with what the network predicts, flow matching with its shift."""
    source = changed(
        "sd", "scheduler/scheduler_config.json", prediction_type="v_prediction", rescale_betas_zero_snr=True
    )
    assert inspect(source).schedule == DDPM("scaled_linear", "v_prediction", zero_terminal_snr=True)


def test_flow_schedules():
    """A fixed shift, one that grows with the image, and the solvers that say it in their own words."""
    assert schedule_of({"shift": 3.0}, "logit_normal") == FlowMatching(shift=3.0, density="logit_normal")
    grows = {"shift": 3.0, "use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15}
    assert schedule_of(grows, "uniform") == FlowMatching(base_shift=0.5, max_shift=1.15)
    solver = {"beta_schedule": "linear", "use_flow_sigmas": True, "flow_shift": 4.0}
    assert schedule_of(solver, "uniform") == FlowMatching(shift=4.0)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"_class_name": "EDMEulerScheduler", "sigma_data": 0.5}, "EDMEulerScheduler is none that we know"),
        ({"_class_name": "DDPMScheduler", "num_train_timesteps": 100}, "has 100 training timesteps, and we know 1000"),
    ],
)
def test_unknown_schedules_are_refused(settings, line):
    with pytest.raises(ValueError, match=line):
        schedule_of(settings, "uniform")


@pytest.mark.parametrize(("version", "name"), [("0.36.0", "torch_dtype"), ("0.40.0", "dtype"), ("0.42.1", "dtype")])
def test_the_number_format_goes_by_diffusers_word_for_it(monkeypatch, version, name):
    import diffusers

    monkeypatch.setattr(diffusers, "__version__", version)
    assert number_format(torch.bfloat16) == {name: torch.bfloat16}


def test_a_family_of_a_newer_diffusers_is_one_line(tiny_pipeline, monkeypatch):
    """requirements.txt allows versions without Krea 2."""
    monkeypatch.setattr(PRETRAINED["sd3"], "since", "99.9")
    with pytest.raises(ValueError, match=rf"^{NEWER}$"):
        inspect(Source(str(tiny_pipeline("sd3"))))


def test_a_family_of_a_newer_diffusers_is_not_offered(tiny_pipeline, tmp_path, monkeypatch):
    """Who chose a folder of something else reads what can be had here, and what with an upgrade."""
    (tmp_path / "model_index.json").write_text('{"_class_name": "Other"}')
    monkeypatch.setattr(PRETRAINED["sd3"], "since", "99.9")
    title = PRETRAINED["sd3"].title
    with pytest.raises(ValueError, match=rf"; with an upgrade also .*{title} \(diffusers 99.9 or newer\)") as refused:
        inspect(Source(str(tmp_path)))
    assert title not in str(refused.value).split("; with an upgrade")[0]


@pytest.mark.parametrize("family", sorted(PRETRAINED))
def test_it_is_true_which_diffusers_has_a_family(family):
    """Asked of the installed one, which is another with `make test` and with `make test-lowest`."""
    import diffusers

    kind = PRETRAINED[family]
    there = hasattr(diffusers, kind.pipeline_class) and hasattr(diffusers, kind.network_class)
    assert there == (not kind.too_new())


def test_nothing_is_loaded_to_know_a_model(tiny_pipeline, tmp_path):
    """inspect() reads settings only: it works in a folder without any weights."""
    folder = tmp_path / "empty"
    shutil.copytree(tiny_pipeline("flux"), folder, ignore=shutil.ignore_patterns("*.safetensors"))
    info = inspect(Source(str(folder)))
    assert (info.family, info.channels) == ("flux", 8)
    assert not list(Path(folder).rglob("*.safetensors"))
    assert Pretrained(Source(str(folder)), info).in_words() == "FLUX.1, to be downloaded"
