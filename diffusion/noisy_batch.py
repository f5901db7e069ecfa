"""The batch that a loss is computed on: teacher-forced latents, some of which may have been rolled out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Generator, Tensor

from .device import picked
from .predictions import blend, per_item, per_sample
from .schedules import Schedule
from .share import Share
from .solvers import Conditioning, History, Model, Solver, appended, ask, rows

PER_ITEM = ("latents", "noise", "timestep", "teacher_forced", "x", "lengths", "source", "stride", "clean_output",
            "mask", "weight")  # fmt: skip
"""What a noisy batch has for each item, beside what the network is told."""


@dataclass(frozen=True)
class Memory:
    """What the rollout's solver remembers of some items: with it, the solver can go on from where they are."""

    places: Tensor
    """The items' places in the batch (n,), int64 on the CPU."""
    history: History


class Listener(Protocol):
    """Somebody who goes on with what the training works out, such as persistent chains."""

    def landed(self, fine: Tensor) -> None:
        """Where the reference paths of the batch's first n items are, one coarse step later (n, ...)."""

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
    """Where the trajectory target's reference path is at the levels of the first n items (n, ...), as of chains that go
    on from step to step; None where it has to be walked from each item's source."""
    negative: Callable[[], Conditioning] | None = None
    """Makes the rows (1, ...), on the CPU, that stand for no caption or class; None = it is not known what does."""
    listener: Listener | None = None
    """Who is to be told what the network puts out at ``x``: see :func:`predict`."""
    dealt: Share | None = None
    """Which items of the global batch these are, where others are in other processes; None = all."""
    timestep_of_all: Tensor | None = None
    """What was drawn for the whole global batch (total,), float64 on the CPU, where ``dealt`` is not None."""

    @property
    def share(self) -> Share:
        return self.dealt or Share.whole(len(self.latents))

    @property
    def drawn_timestep(self) -> Tensor:
        """The timesteps of the whole global batch (total,)."""
        return self.timestep if self.timestep_of_all is None else self.timestep_of_all

    @property
    def rolled(self) -> Tensor:
        """Which items were rolled out (B,), bool on the CPU."""
        return self.lengths > 0

    @property
    def drift(self) -> Tensor:
        """How far rolling out moved each item: the mean square of ``x - teacher_forced`` (B,), on the device; else 0.

        A perfect model drifts too, since one item's path is not straight: this is no measure of exposure bias.
        """
        moved = per_item((self.x - self.teacher_forced) ** 2)
        return per_sample(self.rolled, moved) * moved

    def items(self, index: slice | Tensor) -> NoisyBatch:
        """Some items; a tensor of their numbers (n,) is on the CPU, and may repeat them.

        What is known of the batch as a whole (its share, memory, fine paths, listener) stays, for the caller to change.
        """
        values = {name: getattr(self, name) for name in PER_ITEM}
        some: dict[str, Any] = {name: None if value is None else picked(value, index) for name, value in values.items()}
        return replace(self, conditioning=rows(self.conditioning, index), **some)

    def at(self, timestep: Tensor) -> NoisyBatch:
        """The same items, teacher-forced at other levels (B,), float64 on the CPU."""
        x = self.schedule.add_noise(self.latents, self.noise, timestep)
        return replace(self, timestep=timestep, source=timestep, teacher_forced=x, x=x)

    def followed_by(self, more: NoisyBatch) -> NoisyBatch:
        """These items, and then others; what only one side has for each of its items is left out.

        What is known of the batch as a whole stays, for the caller to change.
        """
        pairs = ((name, getattr(self, name), getattr(more, name)) for name in PER_ITEM)
        both: dict[str, Any] = {
            name: None if mine is None or other is None else torch.cat([mine, other]) for name, mine, other in pairs
        }
        told = {name: appended([value, more.conditioning[name]]) for name, value in self.conditioning.items()}
        return replace(self, conditioning=told, **both)


def noisy_batch(
    latents: Tensor,
    noise: Tensor,
    timestep: Tensor,
    schedule: Schedule,
    conditioning: Conditioning,
    mask: Tensor | None = None,
    weight: Tensor | None = None,
    negative: Callable[[], Conditioning] | None = None,
) -> NoisyBatch:
    """Teacher forcing: clean latents with exactly the scheduled amount of noise."""
    x = schedule.add_noise(latents, noise, timestep)
    return NoisyBatch(
        latents, noise, timestep, x, x, conditioning, schedule,
        lengths=torch.zeros(len(latents), dtype=torch.int64), source=timestep, stride=torch.zeros_like(timestep),
        mask=mask, weight=weight, negative=negative,
    )  # fmt: skip


@dataclass(frozen=True)
class Perturbation:
    """Remedies that change what the network sees without asking it anything; all are off at 0."""

    input_perturbation: float = 0.0
    """gamma: the network sees ``alpha latents + sigma (noise + gamma xi)``, and the target's noise stays as it was
    (Ning et al., arXiv 2301.11706; 0.1 there)."""
    perturbation_steps: int = 0
    """gamma falls evenly to 0 over so many updates; 0 = it stays."""
    mixflow: float = 0.0
    """gamma: levels are drawn as ``1 - sqrt(U)``, and the network sees a noisier one, ``sigma + U' gamma (1 - sigma)``,
    than it is told and trained for (MixFlow, arXiv 2512.19311; 0.8 there)."""
    noise_offset: float = 0.0
    """The drawn noise is moved by so much times a normal number for each channel, which lets a model learn to make very
    dark and very bright images."""

    def __post_init__(self) -> None:
        if self.mixflow and self.input_perturbation:
            raise ValueError("mixflow and input_perturbation both change what the network sees: set one of them to 0")

    def offset(self, noise: Tensor, generator: Generator) -> Tensor:
        """The drawn noise (B, C, H, W), moved."""
        if not self.noise_offset:
            return noise
        shape = (*noise.shape[:2], *[1] * (noise.dim() - 2))
        return noise + self.noise_offset * torch.randn(
            shape, generator=generator, device=noise.device, dtype=noise.dtype
        )

    def timestep(self, drawn: Tensor, schedule: Schedule, generator: Generator) -> Tensor:
        """Where each item trains (B,), float64: as drawn, or as MixFlow draws."""
        if not self.mixflow:
            return drawn
        level = 1 - torch.rand(len(drawn), generator=generator, dtype=torch.float64).sqrt()
        return torch.lerp(
            torch.full_like(level, schedule.clean_timestep), drawn.new_tensor(schedule.noisy_timestep), level
        )

    def seen(self, batch: NoisyBatch, update: int, generator: Generator, levels: Generator) -> NoisyBatch:
        """The batch with what the network sees of it in this update; ``levels`` is on the CPU."""
        left = max(0.0, 1 - update / self.perturbation_steps) if self.perturbation_steps else 1.0
        if gamma := self.input_perturbation * left:
            shape, device = (batch.share.total, *batch.x.shape[1:]), batch.x.device
            xi = batch.share.of(torch.randn(shape, generator=generator, device=device, dtype=batch.x.dtype))
            _, sigma = batch.schedule.coefficients(batch.timestep)
            return replace(batch, x=blend((torch.ones_like(sigma), batch.x), (gamma * sigma, xi)))
        if self.mixflow:
            drawn = torch.rand(batch.share.total, generator=levels, dtype=torch.float64)
            share = self.mixflow * batch.share.of(drawn)
            noisier = torch.lerp(batch.timestep, batch.timestep.new_tensor(batch.schedule.noisy_timestep), share)
            return replace(batch, x=batch.schedule.add_noise(batch.latents, batch.noise, noisier))
        return batch


def predict(model: Model, batch: NoisyBatch) -> Tensor:
    """The training forward: the network's output at ``batch.x`` (B, ...). Who listens is told of it."""
    output = ask(model, batch.x, batch.timestep, batch.conditioning)
    if batch.listener is not None:
        batch.listener.answered(output)
    return output
