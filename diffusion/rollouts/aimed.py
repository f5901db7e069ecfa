"""Items that are not rolled out, and still learn the next coarse step: the trajectory target at teacher-forced latents.

Most of what that target teaches does not depend on whose latents it begins at. Without a rollout it costs its reference
alone, one coarse step of a better solver.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Generator, Tensor

from ..noisy_batch import Memory, NoisyBatch
from ..schedules import Schedule
from ..solvers import History
from .plan import RolloutPlan


def aimed(batch: NoisyBatch, plan: RolloutPlan, count: int, generator: Generator) -> NoisyBatch:
    """The batch, whose first ``count`` items are at the beginning of a coarse step of ``plan.step_size``.

    Their levels are the drawn ones, or, with ``from_noise``, those of a sampler with ``max_step_offset + 1`` steps.
    ``count`` is that of the global batch, of which some places are here.
    """
    strides = plan.strides(count, generator)
    chosen = batch.share.first(count)
    here = len(chosen)
    if here == 0:
        return batch
    first, others = batch.items(slice(here)), batch.items(slice(here, None))
    timestep = first.timestep
    if plan.from_noise:
        timestep = levels(batch.schedule, plan.max_step_offset + 1, count, generator)[chosen]
    timestep = timestep.clamp(min=batch.schedule.clean_timestep + 1)  # at the data no step is left to learn
    first = replace(first.at(timestep), stride=strides[chosen])
    memory = (Memory(torch.arange(here), History()),)  # a sampler that goes on from here remembers nothing
    return replace(first.followed_by(others), fine=first.x, memory=memory)


def levels(schedule: Schedule, steps: int, count: int, generator: Generator) -> Tensor:
    """Levels (count,), float64, drawn evenly from those at which a sampler of so many steps asks the network."""
    grid = schedule.sampling_timesteps(steps)[:-1]
    return grid[torch.randint(len(grid), (count,), generator=generator)]
