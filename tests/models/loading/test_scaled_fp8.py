"""ComfyUI's scaled fp8 files are the very weights that they mean; what is squeezed otherwise is one line."""

from dataclasses import replace

import pytest
import torch
from comfyui_rollout.models.loading.load import load_network, load_parts
from comfyui_rollout.models.loading.recognise import inspect
from comfyui_rollout.models.loading.scaled_fp8 import read_meant
from comfyui_rollout.models.loading.source import Source
from original_names import clip, sd3, write

FORMS = {
    "formerly": (".scale_weight", {"scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn)}),
    "now": (".weight_scale", {}),
}


def squeezed(weights, form):
    """The same weights as a scaled file has them, and what they mean in float32."""
    end, marks = FORMS[form]
    kept, meant = dict(marks), {}
    for name, weight in weights.items():
        if weight.ndim != 2 or not name.endswith(".weight"):
            kept[name] = meant[name] = weight
            continue
        layer, scale = name.removesuffix(".weight"), weight.float().abs().max() / 448
        kept[name], kept[layer + end] = (weight / scale).to(torch.float8_e4m3fn), scale
        kept[layer + end.replace("weight", "input")] = torch.ones(())
        if form == "now":
            kept[f"{layer}.comfy_quant"] = torch.tensor([*b'{"format": "float8_e4m3fn"}'], dtype=torch.uint8)
        meant[name] = kept[name].float() * scale
    return kept, meant


@pytest.fixture
def base(tiny_pipeline):
    return Source(str(tiny_pipeline("sd3")), storage="fp32")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("storage", ["bf16", "fp32"])
@pytest.mark.parametrize("names", ["original", "diffusers", "with a prefix"])
def test_a_network_is_what_its_file_means(base, tmp_path, form, storage, names):
    """To the bit, by whoever's names the file goes, q, k and v in one included."""
    network = load_network(base, inspect(base), "cpu").network
    weights = sd3(network) if names == "original" else network.state_dict()
    weights = {f"transformer.{name}" if names == "with a prefix" else name: value for name, value in weights.items()}
    kept, meant = squeezed(weights, form)
    sources = [
        replace(base, path=str(write(tmp_path / f"{name}.safetensors", tensors)), base=base.path, storage=storage)
        for name, tensors in (("kept", kept), ("meant", meant))
    ]
    found, wanted = (load_network(source, inspect(source), "cpu").network.state_dict() for source in sources)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(value, wanted[name]) for name, value in found.items())


def test_a_scale_for_each_row_is_read(tmp_path):
    """As the fp8 files of Ideogram 4 have them."""
    weight = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    scale = weight.abs().amax(1) / 448
    kept = (weight / scale[:, None]).to(torch.float8_e4m3fn)
    path = write(tmp_path / "rows.safetensors", {"a.weight": kept, "a.weight_scale": scale})
    found = read_meant(str(path), torch.float32)
    assert torch.equal(found["a.weight"], kept.float() * scale[:, None])


def test_a_text_encoder_is_what_its_file_means(tiny_pipeline, tmp_path):
    source = Source(str(tiny_pipeline("sd")), storage="fp32")
    info = inspect(source)
    encoder = load_parts(source, info, ["text_encoder"]).text_encoder
    kept, meant = squeezed(clip(encoder, ""), "formerly")
    found, wanted = (
        load_parts(
            replace(source, text_encoders=(str(write(tmp_path / f"{name}.safetensors", each)),)), info, ["text_encoder"]
        ).text_encoder.state_dict()
        for name, each in (("kept", kept), ("meant", meant))
    )
    assert all(torch.equal(value, wanted[name]) for name, value in found.items())


def test_what_is_squeezed_otherwise_is_one_line(base, tmp_path):
    """Scales for blocks of weights, from the header; weights that are no fp8; encoders in the same file; GGUF."""
    blocks = {"a.weight": torch.zeros(4, 8, dtype=torch.uint8), "a.weight_scale": torch.zeros(4, 1)}
    source = replace(base, path=str(write(tmp_path / "nvfp4.safetensors", blocks)), base=base.path)
    with pytest.raises(ValueError, match=r"nvfp4.safetensors' is squeezed with a scale for every few weights"):
        inspect(source)
    odd = write(
        tmp_path / "odd.safetensors",
        {"a.weight": torch.zeros(4, 8, dtype=torch.int8), "a.weight_scale": torch.ones(())},
    )
    with pytest.raises(ValueError, match=r"a\.weight is kept as int8 with 1 scales, which is not read here"):
        read_meant(str(odd), torch.float32)
    whole = {"first_stage_model.decoder.conv_in.bias": torch.zeros(2), "a.scale_weight": torch.ones(())}
    with pytest.raises(ValueError, match="holds scaled fp8 weights of vae beside the network's: choose the file of"):
        inspect(replace(base, path=str(write(tmp_path / "whole.safetensors", whole)), base=base.path))
    with pytest.raises(
        ValueError, match=r"model.gguf' is a GGUF file, which is not read here: choose the .safetensors"
    ):
        inspect(replace(base, path="model.gguf"))
