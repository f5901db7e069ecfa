"""Where frozen weights are and how layers multiply by them, as far as no ComfyUI is needed; tests/host has the rest."""

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from comfyui_rollout.hosts.comfyui_weights import kept_for_backward, lacks_gradient, load
from torch import nn


@pytest.fixture
def management(monkeypatch):
    """ComfyUI's memory management, which notes what it was asked for."""
    module = ModuleType("comfy.model_management")
    module.NUM_STREAMS, module.asked = 2, []
    module.load_models_gpu = lambda models, **how: module.asked.append(how)
    comfy = ModuleType("comfy")
    comfy.model_management = module
    monkeypatch.setitem(sys.modules, "comfy", comfy)
    monkeypatch.setitem(sys.modules, "comfy.model_management", module)
    return module


def patcher(is_in_parts):
    return SimpleNamespace(model=SimpleNamespace(model_lowvram=is_in_parts), load_device="cuda:0")


def test_a_model_that_is_partly_off_the_device_is_one_line(management):
    """Unless it was asked for: what autograd has kept of weights that come and go would change."""
    with pytest.raises(ValueError, match=r"model: ComfyUI keeps a part of it off the device \(lowvram\)") as error:
        load(patcher(is_in_parts=True), offloading=False)
    assert "switch offloading on" in str(error.value)
    load(patcher(is_in_parts=False), offloading=False)
    assert management.asked == [{"force_full_load": True}] * 2


def test_offloading_leaves_room_to_comfyui(management):
    """It is asked to take off all that it can, and may keep parts off."""
    load(patcher(is_in_parts=True), offloading=True)
    assert management.asked == [{"memory_required": 1e20}]


@pytest.mark.parametrize("offloading", [False, True])
def test_no_buffer_is_used_twice_while_autograd_keeps_it(management, offloading):
    """ComfyUI has no streams, and so no buffers, for as long as a step takes; afterwards it has them again."""
    with kept_for_backward(offloading):
        inside = management.NUM_STREAMS
    assert inside == (0 if offloading else 2)
    with pytest.raises(InterruptedError), kept_for_backward(offloading):
        raise InterruptedError
    assert management.NUM_STREAMS == 2


@pytest.mark.parametrize(("dtype", "lacks"), [(torch.bfloat16, False), (torch.float8_e4m3fn, True)])
def test_fp8_without_a_scale_is_multiplied_as_what_it_stands_for(dtype, lacks):
    """ComfyUI's --fast would round what goes into the layer in the forward pass, and not where it is computed again."""
    layer = nn.Linear(2, 2).to(dtype)
    assert not lacks_gradient(layer)  # none of ComfyUI's
    layer.weight_function = []
    assert lacks_gradient(layer) is lacks
