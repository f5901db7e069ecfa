"""Weights files: to the bit, with their words."""

import os
import stat

import pytest
import torch
from comfyui_rollout.files.weights import digest_of, read_weights, save_checked, save_weights
from safetensors import safe_open


def test_weights_carry_the_workflow_in_their_header(tmp_path):
    """The file can be dropped on the canvas: metadata are words, readable without the tensors."""
    weights = {"a": torch.arange(6.0).reshape(2, 3).T, "b": torch.ones(1, requires_grad=True)}
    save_weights(tmp_path / "a.safetensors", weights, {"workflow": '{"nodes": []}'})
    with safe_open(tmp_path / "a.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt", "workflow": '{"nodes": []}'}
    back = read_weights(tmp_path / "a.safetensors")
    assert all(torch.equal(back[name], weights[name]) for name in weights)


@pytest.mark.skipif(os.name == "nt", reason="modes of POSIX")
def test_others_may_read_what_the_umask_lets_them(tmp_path):
    """A ComfyUI of another user loads the LoRA."""
    before = os.umask(0o022)
    try:
        save_weights(tmp_path / "a.safetensors", {"a": torch.zeros(1)}, {})
        save_checked(tmp_path / "b.safetensors", {"a": torch.zeros(1)}, {})
        assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o644}
        os.umask(0o027)
        save_weights(tmp_path / "a.safetensors", {"a": torch.zeros(1)}, {})
        assert stat.S_IMODE((tmp_path / "a.safetensors").stat().st_mode) == 0o640
    finally:
        os.umask(before)


def test_a_checksum_is_of_names_kinds_shapes_bits_and_words():
    """A change of any of them is another checksum; the order in which tensors come is none."""
    tensors = {"a": torch.zeros(2), "b": torch.ones((), dtype=torch.bfloat16)}
    others = [
        {"a": torch.zeros(2), "c": tensors["b"]},
        {"a": torch.zeros(2)},
        {"a": torch.zeros(2, dtype=torch.int32), "b": tensors["b"]},
        {"a": torch.zeros(1, 2), "b": tensors["b"]},
        {"a": torch.tensor([0.0, -0.0]), "b": tensors["b"]},
    ]
    assert digest_of(dict(reversed(tensors.items()))) == digest_of(tensors)
    assert len({digest_of(tensors), digest_of(tensors, "words"), *map(digest_of, others)}) == 7
