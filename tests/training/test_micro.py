"""A batch in parts, and what is said where even that does not help; tests/nodes has whole runs of it."""

from types import SimpleNamespace

import pytest
import torch
from comfyui_rollout.diffusion.noisy_batch import noisy_batch
from comfyui_rollout.diffusion.schedules import FlowMatching
from comfyui_rollout.training.micro import advice, is_out_of_memory, parts_of
from comfyui_rollout.training.options import TrainingOptions


def caused_by(cause):
    error = ValueError("node 6 (Rollout), step 3")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize(
    ("error", "out"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."), True),
        (RuntimeError("shapes do not fit"), False),
        (None, False),
    ],
    ids=["device", "processor", "another", "none"],
)
def test_an_allocators_error_is_known_wherever_it_comes_from(error, out, wrapped):
    """Streams wrap what nodes raise; another error must not be taken for a lack of memory, nor hidden."""
    assert is_out_of_memory(caused_by(error) if wrapped else error) == out


def loss_on(batch_size):
    data = SimpleNamespace(inputs={"batch_size": batch_size}, title="Digits Dataset")
    return SimpleNamespace(data=lambda: data)


def test_the_advice_is_what_still_helps():
    """Three things at most, and none that is done already or cannot be done."""
    told = advice(loss_on(8), TrainingOptions(accumulation=3), halves=False)
    assert "batch_size 8 -> 4 in Digits Dataset with accumulation 3 -> 6" in told
    assert "precision bf16" in told
    assert "on_out_of_memory" not in told
    told = advice(loss_on(1), TrainingOptions(precision="bf16"), halves=False)
    assert "batch_size" not in told
    assert "precision" not in told
    assert "on_out_of_memory halve" in told
    assert "on_out_of_memory" not in advice(loss_on(1), TrainingOptions(precision="bf16"), halves=True)


@pytest.mark.parametrize(("count", "sizes"), [(1, [5]), (2, [3, 2]), (3, [2, 2, 1]), (9, [1] * 5)])
def test_parts_are_the_batch_as_even_as_can_be(count, sizes):
    """Each knows its places in the whole, from which draws are made; none is empty, and none is twice."""
    schedule, generator = FlowMatching(), torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 5, 1, 2, 2, generator=generator)
    told = {"item": torch.arange(5)}
    batch = noisy_batch(latents, noise, schedule.sample_timesteps(5, generator), schedule, told)
    parts = list(parts_of(batch, count))
    assert [len(part.latents) for part in parts] == sizes
    for name in ("latents", "noise", "x", "timestep"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(batch, name))
    assert torch.equal(torch.cat([part.conditioning["item"] for part in parts]), told["item"])
    assert torch.equal(torch.cat([part.share.places for part in parts]), torch.arange(5))
    assert {part.share.total for part in parts} == {5}
