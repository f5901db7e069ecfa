"""The validation loss: what a network gets wrong of latents that it is not trained on.

The loss of one training step is mostly chance: which images, which levels, which noise. Here all three are the same
each time, so that only the weights move the curve.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from . import seeds
from .device import moved
from .losses import elementwise, masked_mean, target
from .noisy_batch import noisy_batch, predict
from .schedules import Schedule
from .solvers import Conditioning, Model

DRAWN = 4096
"""Timesteps whose quantiles stand for those that training draws."""


def timesteps_of_each(schedule: Schedule, generators: Sequence[Generator], levels: int) -> Tensor:
    """``levels`` timesteps for each item (levels, B), float64 on the CPU, one in each equal share of training's.

    Each item's own generator says where in their shares, so that many items see more than ``levels`` different ones.
    """
    offsets = torch.stack([torch.rand((), generator=each, dtype=torch.float64) for each in generators])
    places = (torch.arange(levels, dtype=torch.float64)[:, None] + offsets) / levels
    drawn = schedule.sample_timesteps(DRAWN, seeds.generator(0, "validation levels")).sort().values
    return drawn[(places * DRAWN).long().clamp(max=DRAWN - 1)]


@torch.no_grad()
def validation_losses(
    model: Model,
    latents: Tensor,
    conditioning: Conditioning,
    schedule: Schedule,
    generators: Sequence[Generator],
    *,
    levels: int,
    mask: Tensor | None = None,
) -> Tensor:
    """The plain loss of each item (B,), float32: the squared error on teacher-forced latents, mean of its levels.

    ``latents`` (B, C, H, W) and ``mask`` (B, 1, H, W) as in a noisy batch. Noise is drawn on the CPU by each item's own
    generator: the same numbers on every device, whatever else is in the batch.
    """
    schedule = schedule.fitting(latents)
    found = []
    for timestep in timesteps_of_each(schedule, generators, levels):
        noise = torch.stack([torch.randn(latents.shape[1:], generator=each) for each in generators])
        batch = noisy_batch(latents, moved(noise, latents.device), timestep, schedule, conditioning, mask)
        found.append(masked_mean(elementwise(predict(model, batch), target(batch)), batch.mask))
    return torch.stack(found).mean(0)
