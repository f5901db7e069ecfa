"""Chains as data."""

import torch
from chained import batch_of
from comfyui_rollout.diffusion.chains import kind_of
from comfyui_rollout.diffusion.schedules import FlowMatching


def test_kinds_tell_apart_what_cannot_share_a_batch():
    """Sizes, conditioning, masks."""
    schedule = FlowMatching()
    plain = batch_of(schedule)
    assert kind_of(plain) == kind_of(batch_of(schedule, count=3))
    assert kind_of(plain) != kind_of(batch_of(schedule, mask=torch.ones(6, 1, 2, 2)))
