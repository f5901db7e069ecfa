"""DoRA as ComfyUI computes it, which divides by the frozen weights' rows."""

import pytest
import torch
from comfyui_rollout.models.adapters.dora import for_comfyui, for_peft, weights_of
from comfyui_rollout.models.adapters.formats import to_file
from comfyui_rollout.models.adapters.layers import MAGNITUDE
from comfyui_rollout.models.adapters.network import merged_weights


@pytest.fixture
def dora(tiny_pipelines, adapted):
    """A trained DoRA on matrices and convolutions; its magnitudes moved away from the rows' lengths."""
    torch.manual_seed(0)
    made = adapted(tiny_pipelines.unet(), "sd", targets=("to_q", "conv1", "proj_in"), dora=True)
    for part in made.adapter.values():
        part.weights[MAGNITUDE].mul_(1 + 0.3 * torch.rand(part.weights[MAGNITUDE].shape))
    return made


def in_comfyui(weight, tensors, layer):
    """comfy/weight_adapter/base.py, weight_decompose, at strength 1."""
    up, down, magnitude, alpha = (
        tensors[f"{layer}.{name}"] for name in ("lora_B.weight", "lora_A.weight", "dora_scale", "alpha")
    )
    changed = weight + alpha / down.shape[0] * (up.flatten(1) @ down.flatten(1)).reshape(weight.shape)
    length = weight.flatten(1).norm(dim=1, keepdim=True).reshape(-1, *[1] * (weight.ndim - 1))
    return changed * magnitude / length


def test_comfyui_computes_what_was_trained(dora):
    """At strength 1, on every layer; with the magnitudes as they were trained it does not."""
    frozen = weights_of(dora.network, dora.adapter)
    made = to_file(for_comfyui(dora.adapter, frozen, dora.names.turned), "comfyui", dora.names, "unet")
    bare = to_file(dora.adapter, "comfyui", dora.names, "unet")
    frozen = {layer: weight.clone() for layer, weight in frozen.items()}
    trained = merged_weights(dora.model)
    original = {layer: name for name, (layer,) in dora.names.groups.items()}
    for layer, weight in frozen.items():
        name = f"diffusion_model.{original[layer]}"
        merged = trained[f"{layer}.weight"] if f"{layer}.weight" in trained else trained[f"{layer}.base_layer.weight"]
        torch.testing.assert_close(in_comfyui(weight, made, name), merged, atol=1e-5, rtol=1e-5)
        assert (in_comfyui(weight, bare, name) - merged).abs().max() > 1e-3


def test_it_is_turned_back(dora):
    """For training further: the same magnitudes, once, however often it is asked for."""
    frozen = weights_of(dora.network, dora.adapter)
    there = for_comfyui(dora.adapter, frozen, dora.names.turned)
    assert for_comfyui(there, frozen, dora.names.turned) == there
    back = for_peft(there, frozen, dora.names.turned)
    for layer, part in dora.adapter.items():
        torch.testing.assert_close(back[layer].weights[MAGNITUDE], part.weights[MAGNITUDE])
        assert not back[layer].norm_of_frozen
