"""The batch that a loss is computed on: teacher-forced latents, some of which may have been rolled out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from .predictions import per_item
from .schedules import Schedule
from .solvers import Conditioning, History, Model, Solver, ask


@dataclass(frozen=True)
class Memory:
    """What the rollout's solver remembers of some items: with it, the solver can go on from where they are."""

    places: Tensor
    """The items' places in the batch (n,), int64 on the CPU."""
    history: History


class Listener(Protocol):
    """Somebody who goes on with what the training works out, such as persistent chains."""

    def landed(self, fine: Tensor) -> None:
        """Where the fine paths of the batch's first items are, one coarse step later (n, ...)."""

    def answered(self, output: Tensor) -> None:
        """What the network put out at ``batch.x`` (B, ...)."""


@dataclass(frozen=True)
class NoisyBatch:
    """What a loss is computed on: clean latents, noise, and the latents in between at each item's own timestep."""

    latents: Tensor
    """Clean latents (B, C, H, W)."""
    noise: Tensor
    """The drawn noise, of the same shape."""
    timestep: Tensor
    """Where each item trains (B,), float64 on the CPU."""
    teacher_forced: Tensor
    """Perfectly noised latents: alpha * latents + sigma * noise."""
    x: Tensor
    """What the network is trained on: teacher-forced, or rolled out where ``lengths`` > 0."""
    conditioning: Conditioning
    schedule: Schedule
    lengths: Tensor
    """Rollout steps of each item (B,), int64 on the CPU; 0 = teacher-forced."""
    source: Tensor
    """The timestep at which each item's rollout began (B,); equal to ``timestep`` where there was none."""
    stride: Tensor
    """Timesteps in one rollout step of each item (B,), float64 on the CPU; 0 where there was no rollout."""
    clean_output: Tensor | None = None
    """The network's output on the *teacher-forced* latents of the rolled-out items (B, ...), zero elsewhere."""
    mask: Tensor | None = None
    """Where the loss looks (B, 1, H, W), 0..1; None = everywhere."""
    weight: Tensor | None = None
    """How much each item's loss counts (B,); None = 1."""
    solve: Solver | None = None
    """The solver of the rollouts; None where there are none."""
    memory: tuple[Memory, ...] = ()
    """What it remembers of the rolled-out items."""
    fine: Tensor | None = None
    """Where the first n items are on their fine paths (n, ...), if these go on from step to step; else they are walked
    from their source."""
    listener: Listener | None = None
    """Who is to be told what the network puts out at ``x``: see :func:`predict`."""

    @property
    def rolled(self) -> Tensor:
        """Which items were rolled out (B,), bool on the CPU."""
        return self.lengths > 0

    @property
    def drift(self) -> Tensor:
        """How far rolling out moved each item: the mean square of ``x - teacher_forced`` (B,), on the device.

        A perfect model drifts too, since one item's path is not straight: this is no measure of exposure bias.
        """
        return per_item((self.x - self.teacher_forced) ** 2)


def noisy_batch(
    latents: Tensor,
    noise: Tensor,
    timestep: Tensor,
    schedule: Schedule,
    conditioning: Conditioning,
    mask: Tensor | None = None,
    weight: Tensor | None = None,
) -> NoisyBatch:
    """Teacher forcing: clean latents with exactly the scheduled amount of noise."""
    x = schedule.add_noise(latents, noise, timestep)
    lengths = torch.zeros(len(latents), dtype=torch.int64)
    still = torch.zeros_like(timestep)
    return NoisyBatch(
        latents, noise, timestep, x, x, conditioning, schedule, lengths, timestep, still, mask=mask, weight=weight
    )


def predict(model: Model, batch: NoisyBatch) -> Tensor:
    """The training forward: the network's output at ``batch.x`` (B, ...). Who listens is told of it."""
    output = ask(model, batch.x, batch.timestep, batch.conditioning)
    if batch.listener is not None:
        batch.listener.answered(output)
    return output
