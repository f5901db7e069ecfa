"""What needs no ComfyUI of the files that know it; tests/host has the rest, inside a real one."""

import re

import pytest
import torch
from comfyui_rollout.hosts.comfyui_model import conditioning_of, place, told_of
from comfyui_rollout.server.inside_comfyui import paths_of_an_odd_folder
from torch import nn


def test_a_conditioning_comes_back():
    """Tensors to the bit and numbers as they were, out of inference mode; what a training cannot use is left out."""
    with torch.inference_mode():
        text, pooled = torch.randn(1, 5, 4), torch.randn(1, 6)
    (told,) = told_of([[text, {"pooled_output": pooled, "guidance": 3.5, "width": 64, "unused": None}]])
    assert set(told) == {"cross_attn", "pooled_output", "number.guidance", "number.width"}
    assert not told["cross_attn"].is_inference()
    ((back, options),) = conditioning_of(told, guidance=1.0, other=2)
    assert torch.equal(back, text)
    assert torch.equal(options.pop("pooled_output"), pooled)
    assert options == {"guidance": 3.5, "width": 64, "other": 2}
    assert isinstance(options["width"], int)


@pytest.mark.parametrize("name", ["control", "hooks", "area", "reference_latents"])
def test_what_training_cannot_follow_is_named(name):
    """One line, instead of a training that ignores it."""
    with pytest.raises(ValueError, match=f"conditioning: it holds {name}, which training cannot follow"):
        told_of([[torch.zeros(1, 1, 1), {name: [torch.zeros(1)]}]])


def test_adapters_are_called_as_their_layers():
    """So that the state of the tree is a LoRA file."""
    root = nn.Module()
    for layer in ("blocks.0.attn.q", "blocks.0.attn.k", "out"):
        place(root, f"diffusion_model.{layer}", nn.Linear(1, 1, bias=False))
    assert set(root.state_dict()) == {
        f"diffusion_model.{layer}.weight" for layer in ("blocks.0.attn.q", "blocks.0.attn.k", "out")
    }


@pytest.mark.parametrize("name", ["comfyui-rollout", "ComfyUI-Rollout_1.0", "rollout.x"])
def test_plain_folders_need_nothing(name):
    """ComfyUI serves their files itself."""
    assert paths_of_an_odd_folder(name) == {}


@pytest.mark.parametrize("name", ["my rollout", "rollout (1)", "rollout {x} [y]+"])
def test_odd_folders_are_matched_and_no_others(name):
    """The pattern in a path's braces is that very name."""
    paths = paths_of_an_odd_folder(name)
    assert set(paths) == {"extensions", "workflow_templates"}
    (expression,) = re.findall(r"^/extensions/\{pack:(.*)\}/\{path:\.\+\}$", paths["extensions"])
    assert re.fullmatch(expression, name)
    assert not re.fullmatch(expression, f"{name}2")
