"""Items that are not rolled out stand at the beginning of a coarse step, teacher-forced."""

import pytest
import torch
from chained import batch_of
from comfyui_rollout.diffusion.rollout import RolloutPlan
from comfyui_rollout.diffusion.rollouts.aimed import aimed, levels
from comfyui_rollout.diffusion.schedules import DDPM, FlowMatching

FLOW = FlowMatching()


def asked(count=2, schedule=FLOW, **options):
    batch = batch_of(schedule)
    plan = RolloutPlan(max_step_offset=3, probability=1.0, step_size=250.0, **options)
    return batch, aimed(batch, plan, count, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("schedule", [FLOW, DDPM()], ids=["flow", "ddpm"])
def test_the_first_items_have_a_step_ahead_and_nothing_has_moved(schedule):
    """Their latents are what teacher forcing has at their level; no item counts as rolled out."""
    batch, found = asked(2, schedule)
    assert found.stride.tolist() == [250.0, 250.0, 0.0, 0.0, 0.0, 0.0]
    assert not found.rolled.any()
    assert torch.equal(found.source, found.timestep)
    forced = schedule.add_noise(batch.latents, batch.noise, found.timestep)
    for latents in (found.x, found.teacher_forced):
        torch.testing.assert_close(latents, forced)
    assert torch.equal(found.fine, found.x[:2])
    assert torch.equal(found.timestep, batch.timestep)
    assert [part.places.tolist() for part in found.memory] == [[0, 1]]


def test_from_noise_their_levels_are_a_samplers_and_others_keep_theirs():
    """Of one with a step more than the plan rolls, the noise among them and the clean end not."""
    batch, found = asked(4, from_noise=True)
    assert set(found.timestep[:4].tolist()) <= {250.0, 500.0, 750.0, 1000.0}
    assert torch.equal(found.timestep[4:], batch.timestep[4:])
    assert torch.equal(found.x[4:], batch.x[4:])
    drawn = levels(FLOW, 4, 1000, torch.Generator().manual_seed(0))
    for level in (250.0, 500.0, 750.0, 1000.0):
        assert drawn.eq(level).double().mean().item() == pytest.approx(0.25, abs=0.05)


def test_at_the_data_a_step_is_left():
    """An item whose level is the clean end has nothing to learn: it is put a little above."""
    batch = batch_of(FLOW)
    batch.timestep[:] = 0.0
    found = aimed(batch, RolloutPlan(max_step_offset=3, probability=1.0, step_size=250.0), 2, torch.Generator())
    assert found.timestep.tolist() == [1.0, 1.0, 0.0, 0.0, 0.0, 0.0]


def test_none_is_the_batch_itself():
    batch, found = asked(0)
    assert found is batch
