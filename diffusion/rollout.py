"""Rollout: train on latents that the model denoised itself (scheduled sampling).

For each item: draw a length k, go k steps towards noise from the drawn timestep, noise the clean latents there with
the *same* noise, denoise k steps with the current weights, and train on what comes out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import Generator, Tensor

from .device import moved
from .predictions import per_item
from .schedules import Schedule
from .solvers import Conditioning, Model, Solver, integrate, rows

Strategy = Literal["uniform", "biased_early", "biased_late"]

Observer = Callable[[int, Tensor, Tensor], None]
"""``observe(step, x, order)``: the rolled-out items after ``step`` steps (n, ...), longest rollout first, and their
places in the batch (n,) on the CPU. Step 0 is the source state, before the first step."""


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


class Draw(NamedTuple):
    """What was drawn for each item, all (B,) on the CPU."""

    lengths: Tensor
    """Rollout steps, int64; 0 = teacher-forced."""
    source: Tensor
    """Where the rollout begins, float64; the item's own timestep where there is none."""
    stride: Tensor
    """Timesteps in one rollout step, float64; 0 where there is none."""


class Cost(NamedTuple):
    """What rollouts add to one training step."""

    expected: float
    """Batched forwards, on average."""
    worst: int
    """Batched forwards, at most."""
    samples: float
    """Forwards of single items, on average."""


@dataclass(frozen=True)
class RolloutPlan:
    """How often, how far and from when on items are rolled out. Names as in SimpleTuner's options."""

    max_step_offset: int = 0
    """Longest rollout in steps; each rolled item draws its length in 0..max. 0 = off."""
    probability: float = 0.0
    """Chance in 0..1 that an item is rolled out at all (when ``ramp_steps`` is 0)."""
    ramp_steps: int = 0
    """If set, the probability goes from ``prob_start`` to ``prob_end`` over this many training steps."""
    prob_start: float = 0.0
    prob_end: float = 0.5
    ramp_shape: Literal["linear", "cosine"] = "linear"
    start_step: int = 0
    """No rollouts before this training step; a ramp begins here."""
    strategy: Strategy = "uniform"
    """Lengths: uniform; biased_early favours short ones (u**2), biased_late long ones (1 - u**2)."""
    step_size: float = 1.0
    """Timesteps in one rollout step; 20 is the stride of a 50-step sampler."""
    step_size_max: float = 0.0
    """If set, each item's stride is drawn log-uniformly from ``step_size`` to this."""

    def __post_init__(self) -> None:
        if self.step_size <= 0:
            raise ValueError(f"step_size must be above 0, not {self.step_size}")
        if self.step_size_max and self.step_size_max < self.step_size:
            raise ValueError(f"step_size_max ({self.step_size_max}) is below step_size ({self.step_size})")

    @property
    def active(self) -> bool:
        """Whether any item can ever be rolled out."""
        return self.max_step_offset > 0 and self.peak_probability > 0

    @property
    def peak_probability(self) -> float:
        """The highest chance over the whole training."""
        return max(self.prob_start, self.prob_end) if self.ramp_steps else self.probability

    def probability_at(self, step: int) -> float:
        """The chance that an item is rolled out at this training step."""
        if self.max_step_offset == 0 or step < self.start_step:
            return 0.0
        if not self.ramp_steps:
            return self.probability
        progress = min(1.0, (step - self.start_step) / self.ramp_steps)
        if self.ramp_shape == "cosine":
            progress = (1 - math.cos(math.pi * progress)) / 2
        return self.prob_start + (self.prob_end - self.prob_start) * progress

    def draw(self, timestep: Tensor, schedule: Schedule, step: int, generator: Generator) -> Draw:
        """Each item's rollout; the length is what is left of it after clamping the source at the noisy end."""
        batch = len(timestep)
        chosen = torch.rand(batch, generator=generator) < self.probability_at(step)
        lengths = torch.where(chosen, self._lengths(batch, generator), 0)
        return self.place(timestep, schedule, lengths, self.strides(batch, generator))

    @staticmethod
    def place(timestep: Tensor, schedule: Schedule, lengths: Tensor, stride: Tensor) -> Draw:
        """Rollouts of these lengths and strides (B,) that end at ``timestep``, cut short at the noisy end."""
        source = (timestep + lengths * stride).clamp(max=schedule.noisy_timestep)
        lengths = ((source - timestep) / stride - 1e-9).ceil().long().clamp(min=0)
        rolled = lengths > 0
        return Draw(lengths, torch.where(rolled, source, timestep), torch.where(rolled, stride, 0.0))

    def _lengths(self, batch: int, generator: Generator) -> Tensor:
        if self.strategy == "uniform":
            return torch.randint(self.max_step_offset + 1, (batch,), generator=generator)
        share = torch.rand(batch, generator=generator) ** 2
        if self.strategy == "biased_late":
            share = 1 - share
        return (share * self.max_step_offset).round().long()

    def strides(self, batch: int, generator: Generator) -> Tensor:
        """Timesteps in one rollout step of each item (batch,), float64."""
        if not self.step_size_max:
            return torch.full((batch,), self.step_size, dtype=torch.float64)
        share = torch.rand(batch, generator=generator, dtype=torch.float64)
        return self.step_size * (self.step_size_max / self.step_size) ** share

    def forwards(self, batch: int, calls: int = 1, step: int | None = None) -> Cost:
        """What rollouts cost in the training step ``step``, or where they are most frequent.

        A step needs as many batched forwards as its longest rollout has model calls, so the expected number is
        ``E[max of the lengths] = sum_j P(some length > j)``. Clamping at the noisy end makes it a little less.
        """
        chance = self.peak_probability if step is None else self.probability_at(step)
        longer = [chance * self._share_longer_than(length) for length in range(self.max_step_offset)]
        expected = sum(1 - (1 - share) ** batch for share in longer)
        worst = self.max_step_offset if chance > 0 else 0
        return Cost(calls * expected, calls * worst, calls * batch * sum(longer))

    def _share_longer_than(self, length: int) -> float:
        """Which share of the drawn lengths is above this one: the strategies' distributions, exactly."""
        if self.strategy == "uniform":
            return 1 - (length + 1) / (self.max_step_offset + 1)
        edge = min(1.0, (length + 0.5) / self.max_step_offset)  # longer lengths are those that round up from here
        return 1 - math.sqrt(edge) if self.strategy == "biased_early" else math.sqrt(1 - edge)


def longest_first(lengths: Tensor) -> Tensor:
    """The places (n,) of the items with a rollout, in the order in which a ragged batch needs them."""
    return torch.argsort(lengths, descending=True, stable=True)[: int((lengths > 0).sum())]


def ragged_grid(source: Tensor, target: Tensor, lengths: Tensor) -> Tensor:
    """Timesteps (steps + 1, B): each column goes evenly from source to target in its own length, then stays."""
    step = torch.arange(int(lengths.max()) + 1, dtype=torch.float64)[:, None]
    return torch.lerp(source, target, (step / lengths).clamp(max=1))


@torch.no_grad()
def roll_out(
    model: Model,
    batch: NoisyBatch,
    draw: Draw,
    solve: Solver,
    *,
    want_clean_output: bool = False,
    observe: Observer | None = None,
) -> NoisyBatch:
    """Denoise the chosen items from their source to their timestep with the current weights.

    At most ``lengths.max()`` times the solver's calls in batched forwards. The clean output that ReflexFlow wants
    rides along in the first forward that does not grow larger than the batch by it.
    """
    lengths, source, stride = draw
    order = longest_first(lengths)
    if len(order) == 0:
        return batch
    there = moved(order, batch.x.device)
    latents, noise, teacher_forced = batch.latents[there], batch.noise[there], batch.teacher_forced[there]
    conditioning = rows(batch.conditioning, there)
    grid = ragged_grid(source[order], batch.timestep[order], lengths[order])
    told = moved(batch.timestep[order], batch.x.device, batch.x.dtype)
    passenger = Passenger(model, teacher_forced, told, conditioning, room=len(batch.x))
    x = integrate(
        passenger.share if want_clean_output else model,
        batch.schedule,
        batch.schedule.add_noise(latents, noise, grid[0]),
        grid,
        lengths[order],
        conditioning,
        solve,
        observe and (lambda step, x: observe(step, x, order)),
    )
    clean_output = None
    if want_clean_output:
        clean_output = torch.zeros_like(batch.x).index_copy(0, there, passenger.arrive().to(batch.x.dtype))
    x = batch.x.index_copy(0, there, x)
    return replace(batch, x=x, lengths=lengths, source=source, stride=stride, clean_output=clean_output)


@dataclass
class Passenger:
    """Items that need one prediction and take it in the first forward with room for them."""

    model: Model
    x: Tensor
    timestep: Tensor
    conditioning: Conditioning
    room: int
    """The most items that one forward may hold."""
    output: Tensor | None = None

    def share(self, x: Tensor, timestep: Tensor, conditioning: Conditioning) -> Tensor:
        """The model for other items; ours come along if they fit."""
        if self.output is not None or len(x) + len(self.x) > self.room:
            return self.model(x, timestep, conditioning)
        together = {name: torch.cat([value, self.conditioning[name]]) for name, value in conditioning.items()}
        output = self.model(torch.cat([x, self.x]), torch.cat([timestep, self.timestep]), together)
        self.output = output[len(x) :]
        return output[: len(x)]

    def arrive(self) -> Tensor:
        """The prediction (n, ...), in a forward of its own where no other had room."""
        if self.output is None:
            self.output = self.model(self.x, self.timestep, self.conditioning)
        return self.output
