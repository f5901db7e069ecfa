"""Files in every format read again: what we write, and the spellings of other tools."""

import pytest
import torch
from comfyui_rollout.models.adapters.formats import original_layers, to_file, with_unit_scales
from comfyui_rollout.models.adapters.layers import DOWN, UP, rescaled, to_peft
from comfyui_rollout.models.adapters.reading import from_file
from comfyui_rollout.models.families import PRETRAINED
from diffusers.loaders.lora_conversion_utils import _convert_non_diffusers_flux3_lora_to_diffusers
from own_networks import WRITTEN


@pytest.mark.parametrize("kind", ["lora", "lokr", "loha"])
@pytest.mark.parametrize(("family", "format"), WRITTEN)
def test_what_we_write_we_read(trained, family, format, kind):
    """Every layer of every family: the same tensors come back, joined or not."""
    made = trained(family, kind=kind)
    if family in ("lumina2", "ideogram4", "qwen_image_21") and kind == "lokr" and format != "diffusers":
        with pytest.raises(ValueError, match=r"LoKr of \d layers cannot be said in this file"):
            to_file(made.adapter, format, made.names, made.part)
        return
    found = from_file(to_file(made.adapter, format, made.names, made.part), made.names)
    assert (found.unknown, found.misfits) == ([], ())
    assert found.adapter.keys() == made.adapter.keys()
    for layer, part in made.adapter.items():
        back = found.adapter[layer]
        part = rescaled(part, 1.0) if format == "diffusers" else part
        if kind != "lokr":
            assert back.scale == pytest.approx(part.scale)
            assert all(torch.equal(back.weights[name], part.weights[name]) for name in part.weights), layer
        assert back.weights.keys() == part.weights.keys()


@pytest.mark.parametrize(("family", "format"), WRITTEN)
def test_dora_is_read_again(trained, family, format):
    """Lengths of weight vectors, of matrices and convolutions, alone and joined."""
    made = trained(family, targets=PRETRAINED[family].lora_targets["all"], dora=True)
    back = to_peft(from_file(to_file(made.adapter, format, made.names, made.part), made.names).adapter)
    wanted = to_peft(with_unit_scales(made.adapter) if format == "diffusers" else made.adapter)
    assert back.keys() == wanted.keys()
    assert all(torch.equal(back[key], wanted[key]) for key in wanted)


SPELLINGS = {
    "diffusers": ("unet.{}.lora_A.weight", "unet.{}.lora_B.weight"),
    "peft": ("base_model.model.{}.lora_A.weight", "base_model.model.{}.lora_B.weight"),
    "peft in a pipeline": ("unet.base_model.model.{}.lora_A.weight", "unet.base_model.model.{}.lora_B.weight"),
    "older diffusers": ("unet.{}.lora.down.weight", "unet.{}.lora.up.weight"),
    "oldest diffusers": ("unet.{processor}_lora.down.weight", "unet.{processor}_lora.up.weight"),
    "a network alone": ("{}.lora_A.weight", "{}.lora_B.weight"),
    "with an adapter's name": ("{}.lora_A.default.weight", "{}.lora_B.default.weight"),
    "kohya": ("lora_unet_{flat}.lora_down.weight", "lora_unet_{flat}.lora_up.weight"),
    "lycoris": ("lycoris_{flat}.lora_down.weight", "lycoris_{flat}.lora_up.weight"),
}


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS.keys())
def test_other_peoples_spellings_are_read(trained, spelling):
    """The same adapter, whoever wrote it."""
    made = trained("sd", targets=PRETRAINED["sd"].lora_targets["attention"])
    tensors = {}
    for layer, part in made.adapter.items():
        before, _, last = layer.removesuffix(".0").rpartition(".")
        words = {"flat": layer.replace(".", "_"), "processor": f"{before}.processor.{last}"}
        for name, pattern in zip((DOWN, UP), spelling, strict=True):
            tensors[pattern.format(layer, **words)] = part.weights[name]
    found = from_file(tensors, made.names, {"r": 2, "lora_alpha": 3})
    assert found.unknown == []
    back, wanted = to_peft(found.adapter), to_peft(made.adapter)
    assert back.keys() == wanted.keys()
    assert all(torch.equal(back[key], wanted[key]) for key in wanted)
    assert {part.scale for part in found.adapter.values()} == {1.5}


def test_alpha_in_the_file_wins(trained):
    """kohya's alpha is per layer; without one, and without settings, the scale is 1."""
    made = trained("sd", targets=("to_q",))
    tensors = to_file(made.adapter, "kohya", made.names, "unet")
    first = next(key for key in tensors if key.endswith(".alpha"))
    tensors[first] = torch.tensor(8.0)
    scales = sorted({part.scale for part in from_file(tensors, made.names, {"r": 2, "lora_alpha": 1}).adapter.values()})
    assert scales == [1.5, 4.0]
    bare = {key: value for key, value in tensors.items() if not key.endswith(".alpha")}
    assert {part.scale for part in from_file(bare, made.names).adapter.values()} == {1.0}


def test_a_matrix_is_read_for_a_small_convolution(trained):
    """SD 1.x has 1x1 convolutions where SDXL has matrices, and tools write both."""
    made = trained("sd", targets=("proj_in",))
    tensors = to_file(made.adapter, "kohya", made.names, "unet")
    flat = {key: value.flatten(1) if value.ndim == 4 else value for key, value in tensors.items()}
    found = to_peft(from_file(flat, made.names).adapter)
    assert all(torch.equal(found[key], value) for key, value in to_peft(made.adapter).items())


def test_what_does_not_fit_is_counted(trained):
    """Keys of other models, of text encoders, of other sizes and halves of a pair."""
    made = trained("sd", targets=("attn1.to_q",))
    tensors = to_file(made.adapter, "kohya", made.names, "unet")
    first, second, *_ = [key for key in tensors if key.endswith("lora_down.weight")]
    tensors["lora_unet_double_blocks_0_img_mod_lin.lora_down.weight"] = torch.zeros(2, 2)
    tensors["lora_te_text_model_encoder_layers_0_mlp_fc1.alpha"] = torch.tensor(1.0)
    tensors[first] = torch.zeros(2, 5)
    del tensors[second]
    found = from_file(tensors, made.names)
    assert found.unknown == ["lora_unet_double_blocks_0_img_mod_lin.lora_down.weight"]
    assert found.text_encoders == 1
    assert len(found.misfits) == 2
    assert len(found.adapter) == len(made.adapter) - 2


def test_flux3_is_read_by_its_original_names(trained):
    """As diffusers' own converter reads them; only blocks, of which alone it knows."""
    made = trained("flux3", targets=PRETRAINED["flux3"].lora_targets["all"])
    found = original_layers(made.adapter, made.names)
    file = {f"diffusion_model.{name}.{key}.weight": value for name, part in found.items() for key, value in both(part)}
    back = from_file(file, made.names)
    assert (back.unknown, back.misfits, back.adapter.keys()) == ([], (), made.adapter.keys())
    theirs = _convert_non_diffusers_flux3_lora_to_diffusers(dict(file))
    for layer, part in back.adapter.items():
        for key, value in both(part):
            assert torch.equal(theirs[f"transformer.{layer}.{key}.weight"], value)


def both(part):
    return (("lora_A", part.weights[DOWN]), ("lora_B", part.weights[UP]))
