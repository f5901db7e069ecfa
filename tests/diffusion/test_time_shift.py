"""A network that is told a lower level than the latents have: by how much, and that nothing else is moved."""

from types import SimpleNamespace

import pytest
import torch
from comfyui_rollout.diffusion.schedules import FlowMatching
from comfyui_rollout.diffusion.time_shift import pipeline_told_lower, told_lower
from diffusers import FlowMatchEulerDiscreteScheduler


def test_the_network_is_told_less_but_not_less_than_the_data_s_level():
    """The latents are as they were; 0 is the very network."""
    schedule, told = FlowMatching(), []

    def model(x, timestep, conditioning):
        told.append(timestep)
        return x

    x = torch.ones(3, 1, 2, 2)
    assert torch.equal(told_lower(model, schedule, 20.0)(x, torch.tensor([900.0, 20.0, 5.0]), {}), x)
    assert told[0].tolist() == [880.0, schedule.clean_timestep, schedule.clean_timestep]
    assert told_lower(model, schedule, 0.0) is model


def test_a_pipeline_steps_by_the_true_levels():
    """It hears lower ones from its scheduler; latents go the same way, also where two low ones are clamped to one."""

    def walk(pipeline):
        pipeline.scheduler.set_timesteps(4)
        x, told = torch.ones(1, 4), []
        for timestep in pipeline.scheduler.timesteps:
            told.append(float(timestep))
            x = pipeline.scheduler.step(0.5 * x, timestep, x).prev_sample
        return x, told

    pipeline = SimpleNamespace(scheduler=FlowMatchEulerDiscreteScheduler())
    x, true = walk(pipeline)
    with pipeline_told_lower(pipeline, 600.0):
        moved, low = walk(pipeline)
    assert torch.equal(moved, x)
    assert low == [max(0.0, each - 600) for each in true]
    assert low.count(0.0) > 1


def test_a_pipeline_has_its_own_scheduler_again():
    """Whatever happens in its call."""
    scheduler = FlowMatchEulerDiscreteScheduler()
    pipeline = SimpleNamespace(scheduler=scheduler)
    seen = []

    def fail():
        with pipeline_told_lower(pipeline, 20.0):
            seen.append(pipeline.scheduler)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert seen[0] is not scheduler
    assert pipeline.scheduler is scheduler


def test_what_a_pipeline_sets_is_its_schedulers():
    """Z-Image's of older diffusers sets where the steps end, before it asks for them."""
    pipeline = SimpleNamespace(scheduler=FlowMatchEulerDiscreteScheduler())
    with pipeline_told_lower(pipeline, 20.0):
        pipeline.scheduler.sigma_min = 0.0
    assert pipeline.scheduler.sigma_min == 0.0
