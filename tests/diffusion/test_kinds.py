"""What chains and pairs keep by kinds of items comes back from its state as it was, and apart from it."""

import torch
from comfyui_rollout.diffusion.kinds import by_kind, flattened

KEPT = {"3x1": {"latents": torch.ones(2), "steps/of": torch.zeros(1)}, "1x3": {"latents": torch.arange(3.0)}}


def test_kinds_come_back_from_their_state():
    """Names of tensors may have the sign in them, kinds may not."""
    again = by_kind(flattened(KEPT, "/"), "/")
    assert again.keys() == KEPT.keys()
    for kind, tensors in KEPT.items():
        assert again[kind].keys() == tensors.keys()
        assert all(torch.equal(again[kind][name], value) for name, value in tensors.items())


def test_what_comes_back_is_apart_from_the_state():
    """A state's file may be mapped into memory: what goes on training must not write into it."""
    state = flattened(KEPT, ":")
    by_kind(state, ":")["1x3"]["latents"].fill_(7)
    assert torch.equal(state["1x3:latents"], torch.arange(3.0))
