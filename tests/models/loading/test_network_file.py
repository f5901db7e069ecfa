"""Networks in one file, by original or diffusers' names."""

import shutil

import pytest
import torch
from comfyui_rollout.models.adapters.names import names_of
from comfyui_rollout.models.families import PRETRAINED
from comfyui_rollout.models.loading.network_file import readable_names
from comfyui_rollout.models.loading.pretrained import Pretrained
from comfyui_rollout.models.loading.recognise import inspect
from comfyui_rollout.models.loading.single_file import default_base, family_of_file
from comfyui_rollout.models.loading.source import Source
from diffusers import LongCatImageTransformer2DModel
from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES
from loaded import NETWORK_FILE, equal, network, parts
from original_names import anima, ideogram4, write
from own_networks import READERS
from safetensors.torch import load_file

TRANSFORMERS = [family for family in READERS if PRETRAINED[family].network_part == "transformer"]
"""The networks that people keep in a file of their own."""


@pytest.mark.parametrize("family", TRANSFORMERS)
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


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_qwen_image_21_is_read_by_comfyuis_names(tiny_pipeline, tmp_path, prefix):
    """Its file has the two gates of a perceptron in one; all else is as in diffusers, and could be taken for that."""
    folder = tiny_pipeline("qwen_image_21")
    own = network(Source(str(folder), storage="fp32"))
    weights = {f"{prefix}{name}": value for name, value in own.state_dict().items()}
    for name in [name for name in weights if ".gate_layer." in name]:
        halves = [weights.pop(name), weights.pop(name.replace("gate_layer", "proj"))]
        weights[name.replace("gate_layer", "gate_up")] = torch.cat(halves)
    path = write(tmp_path / "network.safetensors", weights)
    assert family_of_file(str(path)) == "qwen_image_21"
    assert equal(network(Source(str(path), base=str(folder), storage="fp32")), own)


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_flux3_is_read_by_its_original_names(tiny_pipeline, tmp_path, prefix):
    """Also with the last scale and shift the other way round; the step-distilled one is refused."""
    folder = str(tiny_pipeline("flux3"))
    own = network(Source(folder, storage="fp32"))
    names, live = names_of("Flux3Transformer2DModel", own.config), own.state_dict()
    weights = {}
    for original, (layer,) in names.groups.items():
        value = live.pop(f"{layer}.weight")
        weights[f"{original}.weight"] = torch.cat(value.chunk(2)[::-1]) if names.turned(layer) else value
    norms = {"norm_q": "norm.query_norm.scale", "norm_k": "norm.key_norm.scale"}
    starts = {"single_transformer_blocks": "single_blocks", "mode_blocks": "content_mode_blocks"}
    for name, value in live.items():
        block, _, norm = name.removesuffix(".weight").partition(".attn.")
        start = block.partition(".")[0]
        weights[f"{block.replace(start, starts.get(start, start), 1)}.{norms[norm]}"] = value
    weights = {f"{prefix}{name}": value for name, value in weights.items()}
    path = write(tmp_path / "flux3.safetensors", weights)
    assert (family_of_file(str(path)), default_base(str(path))) == (
        "flux3",
        "black-forest-labs/flux-3-image-klein-base",
    )
    assert equal(network(Source(str(path), base=folder, storage="fp32")), own)
    weights[f"{prefix}ref_time_in.in_layer.weight"] = torch.zeros(16, 16)
    with pytest.raises(ValueError, match=r"is the step-distilled FLUX\.3, which is told where each of its steps ends"):
        inspect(Source(str(write(tmp_path / "distilled.safetensors", weights)), base=folder))


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
