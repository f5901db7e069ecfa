"""A noisy batch is cut and put together with all that it has of each item."""

from dataclasses import fields, replace

import torch
from comfyui_rollout.diffusion.noisy_batch import PER_ITEM, NoisyBatch, noisy_batch
from comfyui_rollout.diffusion.schedules import FlowMatching

OF_THE_WHOLE = {"fine", "timestep_of_all"}
"""Tensors that have a row for some of the items, or for those of other processes too."""


def full(device="cpu", count=5):
    """A batch with everything that one can have of an item."""
    schedule, (latents, noise, clean) = FlowMatching(), torch.randn(3, count, 2, 4, 4).to(device)
    timestep = schedule.sample_timesteps(count, torch.Generator().manual_seed(0))
    told, mask = {"text": torch.randn(count, 3).to(device)}, torch.rand(count, 1, 4, 4).to(device)
    batch = noisy_batch(latents, noise, timestep, schedule, told, mask, torch.rand(count))
    return replace(batch, clean_output=clean, lengths=torch.arange(count))


def test_every_tensor_of_an_item_is_listed():
    """A new field that is not would stay as long as it was where a batch is cut."""
    tensors = {field.name for field in fields(NoisyBatch) if field.type in ("Tensor", "Tensor | None")}
    assert tensors - OF_THE_WHOLE == {*PER_ITEM}


def test_parts_behind_one_another_are_the_whole():
    """All of it, to the last bit, and in its order."""
    batch = full()
    whole = batch.items(slice(2)).followed_by(batch.items(torch.tensor([2, 3, 4])))
    for name in PER_ITEM:
        assert torch.equal(getattr(whole, name), getattr(batch, name)), name
    assert torch.equal(whole.conditioning["text"], batch.conditioning["text"])


def test_what_one_side_lacks_both_do_without():
    """A mask for some of the items only is none."""
    batch = full()
    for both in (batch.followed_by(replace(batch, mask=None)), replace(batch, mask=None).followed_by(batch)):
        assert both.mask is None
        assert len(both.x) == len(both.weight) == 10


def test_items_are_chosen_from_the_cpu():
    """By numbers there, which may come twice, whatever device latents are on: a meta device has none to look at."""
    some = full("meta").items(torch.tensor([0, 0, 3]))
    assert some.x.shape == (3, 2, 4, 4)
    assert (some.x.device.type, some.weight.device.type, some.lengths.tolist()) == ("meta", "cpu", [0, 0, 3])
