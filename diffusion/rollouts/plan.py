"""The plan of the rollouts of a training: how many items, how far, from when on, and what that costs."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import Generator, Tensor

from ..schedules import Schedule
from ..share import Share

Strategy = Literal["uniform", "biased_early", "biased_late"]
Kind = Literal["fresh", "persistent", "none"]

DRAWN = 4096
"""Items that stand for all, in estimates."""


class Draw(NamedTuple):
    """What was drawn for each item, all (B,) on the CPU."""

    lengths: Tensor
    """Rollout steps, int64; 0 = teacher-forced."""
    source: Tensor
    """Where the rollout begins, float64; the item's own timestep where there is none."""
    stride: Tensor
    """Timesteps in one rollout step, float64; 0 where there is none."""

    def of(self, share: Share) -> Draw:
        """Of a draw for the whole global batch, what was drawn for the items of this process."""
        return Draw(*map(share.of, self))


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
    rollout: Kind = "fresh"
    """fresh: drawn anew in each training step. persistent: chains that go on from step to step; ``probability`` is
    their share of a batch. none: nothing is rolled out, and that share of a batch learns a coarse step of
    ``step_size`` from teacher-forced latents (see :func:`~.aimed.aimed`)."""
    from_noise: bool = False
    """Chains begin at pure noise and go down a sampler's grid; else all over the levels, as often as they are drawn."""
    max_age: int = 0
    """A chain that is still going after so many updates begins anew; 0 = ten times as many as it has steps."""
    start: float = 0.0
    """No rollouts before this share of the training; the later of this and ``start_step`` counts."""
    ramp: float = 0.0
    """If set, a ramp over this share of the training, in place of ``ramp_steps``."""

    def __post_init__(self) -> None:
        if self.step_size <= 0:
            raise ValueError(f"step_size must be above 0, not {self.step_size}")
        if self.step_size_max and self.step_size_max < self.step_size:
            raise ValueError(f"step_size_max ({self.step_size_max}) is below step_size ({self.step_size})")
        if self.ramp and self.ramp_steps:
            raise ValueError("ramp and ramp_steps say the same in two ways: set one of them to 0")

    @property
    def active(self) -> bool:
        """Whether any item can ever be rolled out."""
        return self.max_step_offset > 0 and self.peak_probability > 0

    @property
    def peak_probability(self) -> float:
        """The highest chance over the whole training."""
        return max(self.prob_start, self.prob_end) if self.ramps else self.probability

    @property
    def ramps(self) -> bool:
        """Whether the chance changes over the training."""
        return bool(self.ramp_steps or self.ramp)

    def ends_at_once(self, schedule: Schedule) -> bool:
        """Whether there is no level at which a chain could be trained after its first step."""
        span = schedule.noisy_timestep - schedule.clean_timestep
        return round(span / self.step_size) <= 1 if self.from_noise else self.step_size >= span

    def over(self, steps: int) -> RolloutPlan:
        """The plan with its shares of a training of so many steps in steps."""
        if not (self.start or self.ramp):
            return self
        start_step = max(self.start_step, round(self.start * steps))
        ramp_steps = max(1, round(self.ramp * steps)) if self.ramp else self.ramp_steps
        return replace(self, start_step=start_step, ramp_steps=ramp_steps, start=0.0, ramp=0.0)

    def never_begins(self, steps: int) -> str:
        """Why a training of so many steps has no rollouts though it could have them; empty if it has."""
        plan = self.over(steps)
        if not self.active or any(plan.probability_at(step) for step in {plan.start_step, steps - 1} if step < steps):
            return ""
        if plan.start_step < steps:
            return f"rollouts never begin: their ramp rises from 0 at step {plan.start_step}, the training's last"
        return f"rollouts never begin: they start at step {plan.start_step}, and the training has {steps}"

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

    def draw_down(self, timestep: Tensor, lowest: float, step: int, generator: Generator) -> Draw:
        """Rollouts that begin where the items are and end at ``lowest`` at the latest, at least a step long.

        For copies that are trained beside their items; those that stand at the lowest level already have none.
        """
        batch = len(timestep)
        chosen = torch.rand(batch, generator=generator) < self.probability_at(step)
        lengths, stride = self._lengths(batch, generator).clamp(min=1), self.strides(batch, generator)
        possible = ((timestep - lowest) / stride - 1e-9).ceil().long().clamp(min=0)
        lengths = torch.where(chosen, torch.minimum(lengths, possible), 0)
        return Draw(lengths, timestep, torch.where(lengths > 0, stride, 0.0))

    @staticmethod
    def place(timestep: Tensor, schedule: Schedule, lengths: Tensor, stride: Tensor) -> Draw:
        """Rollouts of these lengths and strides (B,) that end at ``timestep``, cut short at the noisy end."""
        source = (timestep + lengths * stride).clamp(max=schedule.noisy_timestep)
        lengths = ((source - timestep) / stride - 1e-9).ceil().long().clamp(min=0)
        rolled = lengths > 0
        return Draw(lengths, torch.where(rolled, source, timestep), torch.where(rolled, stride, 0.0))

    def seats(self, batch: int, step: int, generator: Generator) -> int:
        """How many of a batch's places have a chain in this training step: the probability's share, on average."""
        return places_for(self.probability_at(step), batch, generator)

    def often(self, places: int, batch: int, step: int) -> Tensor:
        """The share of training steps in which :meth:`seats` takes each of the first places (places,), 1e-3..1."""
        share = self.probability_at(step) * batch - torch.arange(places, dtype=torch.float64)
        return share.clamp(1e-3, 1)

    def chain_lengths(self, count: int, generator: Generator) -> Tensor:
        """How many levels each chain passes, at most (count,), int64.

        Every level that a chain passes is trained, the short rollouts of its beginning too. So that all levels together
        have the strategy's distribution of lengths, chains of L levels get the share ``L (p(L-1) - p(L))``. Lengths
        that are mostly long cannot be had that way: biased_late is uniform.
        """
        longest = self.max_step_offset + 1
        if self.strategy != "biased_early":
            return torch.full((count,), longest)
        above = torch.tensor([1.0, *map(self._share_longer_than, range(longest - 1)), 0.0, 0.0], dtype=torch.float64)
        chance = above[:-1] - above[1:]  # of the lengths 0..longest
        levels = torch.arange(1, longest + 1)
        return 1 + torch.multinomial(levels * (chance[:-1] - chance[1:]), count, replacement=True, generator=generator)

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

    def forwards(self, batch: int, calls: int = 1, step: int | None = None, schedule: Schedule | None = None) -> Cost:
        """What rollouts cost in the training step ``step``, or where they are most frequent.

        A step needs as many batched forwards as its longest rollout has model calls, so the expected number is
        ``E[max of the lengths] = sum_j P(some length > j)``. They are shorter by what the noisy end of ``schedule``
        cuts off, where it is known.
        """
        chance = self.peak_probability if step is None else self.probability_at(step)
        room = self._room(schedule) if schedule else [1.0] * self.max_step_offset
        longer = [chance * self._share_longer_than(length) * share for length, share in enumerate(room)]
        expected = sum(1 - (1 - share) ** batch for share in longer)
        worst = self.longest(schedule) if chance > 0 else 0
        return Cost(calls * expected, calls * worst, calls * batch * sum(longer))

    def longest(self, schedule: Schedule | None) -> int:
        """Steps of the longest rollout that there is room for."""
        if schedule is None:
            return self.max_step_offset
        span = schedule.noisy_timestep - schedule.clean_timestep
        return min(self.max_step_offset, math.ceil(span / self.step_size))

    def _room(self, schedule: Schedule) -> list[float]:
        """The share of the items that have room for step 1, 2, ... ``max_step_offset`` towards the noisy end."""
        generator = Generator().manual_seed(0)
        timestep, stride = schedule.sample_timesteps(DRAWN, generator), self.strides(DRAWN, generator)
        possible = (schedule.noisy_timestep - timestep) / stride - 1e-9
        return [float((possible > steps).double().mean()) for steps in range(self.max_step_offset)]

    def _share_longer_than(self, length: int) -> float:
        """The probability that a drawn length is above this one, exactly, by the strategy's distribution."""
        if self.strategy == "uniform":
            return 1 - (length + 1) / (self.max_step_offset + 1)
        edge = min(1.0, (length + 0.5) / self.max_step_offset)  # longer lengths are those that round up from here
        return 1 - math.sqrt(edge) if self.strategy == "biased_early" else math.sqrt(1 - edge)


def places_for(probability: float, batch: int, generator: Generator) -> int:
    """How many of a batch's places a share of it takes: a whole number, which is ``probability * batch`` on average."""
    share = probability * batch
    return min(batch, int(share + torch.rand((), generator=generator, dtype=torch.float64))) if share else 0
