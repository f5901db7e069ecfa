"""Weights files: to the bit, with their words."""

import torch
from comfyui_rollout.files.weights import read_weights, save_weights
from safetensors import safe_open


def test_weights_carry_the_workflow_in_their_header(tmp_path):
    """The file can be dropped on the canvas: metadata are words, readable without the tensors."""
    weights = {"a": torch.arange(6.0).reshape(2, 3).T, "b": torch.ones(1, requires_grad=True)}
    save_weights(tmp_path / "a.safetensors", weights, {"workflow": '{"nodes": []}'})
    with safe_open(tmp_path / "a.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt", "workflow": '{"nodes": []}'}
    back = read_weights(tmp_path / "a.safetensors")
    assert all(torch.equal(back[name], weights[name]) for name in weights)
