"""What every solver is made of: levels, memory, the model as a solver sees it, and the step itself.

A solver is one pure function, ``step(predict, x, now, then, history) -> (x, history)``: the state, the levels and
the memory are values that go in and come out, so any step can be replayed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from ..device import moved, picked
from ..predictions import to_denoised
from ..schedules import Schedule

Conditioning = dict[str, Tensor]
"""What the network is told beside the timestep: named tensors, each batch-first."""

Model = Callable[[Tensor, Tensor, Conditioning], Tensor]
"""A network: ``output = model(x, timestep, conditioning)`` with x (B, ...), timestep (B,), output (B, ...)."""


def rows(conditioning: Conditioning, index: slice | Tensor) -> Conditioning:
    """The conditioning of some items of the batch; a tensor of their numbers may be on the CPU."""
    return {name: picked(value, index) for name, value in conditioning.items()}


def appended(parts: Sequence[Tensor]) -> Tensor:
    """Items (B, ...) one behind the other. Texts (B, L, ...) are padded with zeros to the longest; a mask tells it."""
    if parts[0].ndim > 1:
        longest = max(part.shape[1] for part in parts)
        parts = [padded_to(part, longest) for part in parts]
    return torch.cat(list(parts))


def padded_to(values: Tensor, length: int, side: int = 1) -> Tensor:
    """A tensor (B, L, ...) with zeros behind up to a length (B, length, ...), or along another side than the second."""
    return F.pad(values, (*[0] * (2 * (values.ndim - 1 - side)), 0, length - values.shape[side]))


def has_masks(names: Iterable[str]) -> bool:
    """Whether masks are among what a network is told: they say how long each item's text is."""
    return any(name.endswith("mask") for name in names)


def ask(model: Model, x: Tensor, timestep: Tensor, conditioning: Conditioning) -> Tensor:
    """The network's output (B, ...) in the dtype of ``x``, at levels (B,) that live on the CPU.

    The clean end of a DDPM schedule has timestep -1, which no network was trained on: it is told 0 there.
    """
    told = moved(timestep.clamp(min=0), x.device, x.dtype)
    return model(x, told, conditioning).to(x.dtype)


@dataclass(frozen=True)
class Level:
    """Where each sample stands on the schedule: three float64 tensors on the CPU, (B,) or (steps + 1, B)."""

    timestep: Tensor
    alpha: Tensor
    sigma: Tensor

    @classmethod
    def at(cls, schedule: Schedule, timestep: Tensor) -> Level:
        return cls(timestep, *schedule.coefficients(timestep))

    @cached_property
    def log_snr(self) -> Tensor:
        """``lambda = log(alpha / sigma)``: -inf at pure noise, +inf at the clean end."""
        return self.alpha.log() - self.sigma.log()

    def first(self, count: int) -> Level:
        return self if count == self.timestep.shape[-1] else self.items(slice(count))

    def items(self, index: slice | Tensor) -> Level:
        """Some samples' levels."""
        return Level(self.timestep[..., index], self.alpha[..., index], self.sigma[..., index])

    def row(self, step: int) -> Level:
        """One row (B,) of a whole grid of levels."""
        return Level(self.timestep[step], self.alpha[step], self.sigma[step])


@dataclass(frozen=True)
class History:
    """What a multistep solver remembers, the newest first."""

    levels: tuple[Level, ...] = ()
    denoised: tuple[Tensor, ...] = ()
    x: Tensor | None = None
    """The state from which the last step was taken (a corrector starts there again)."""

    def first(self, count: int) -> History:
        return self.items(slice(count))

    def items(self, index: slice | Tensor) -> History:
        """What is remembered of some samples; a tensor of their numbers is on the CPU."""
        return History(
            tuple(level.items(index) for level in self.levels),
            tuple(picked(value, index) for value in self.denoised),
            None if self.x is None else picked(self.x, index),
        )

    def after(self, level: Level, denoised: Tensor, x: Tensor, keep: int) -> History:
        """The history with one more prediction, of which the newest ``keep`` remain."""
        return History((level, *self.levels)[:keep], (denoised, *self.denoised)[:keep], x)


@dataclass(frozen=True)
class Predictor:
    """The model as a solver sees it, with its conditioning; float32 out, whatever the network computes in."""

    model: Model
    conditioning: Conditioning
    schedule: Schedule

    def output(self, x: Tensor, level: Level) -> Tensor:
        """What the network itself puts out (B, ...)."""
        return ask(self.model, x, level.timestep, self.conditioning)

    def denoised(self, x: Tensor, level: Level) -> Tensor:
        """The predicted clean latents (B, ...) of ``x`` at ``level``."""
        return to_denoised(self.schedule.prediction, self.output(x, level), x, level.alpha, level.sigma)


class Step(Protocol):
    def __call__(
        self, predict: Predictor, x: Tensor, now: Level, then: Level, history: History
    ) -> tuple[Tensor, History]: ...


class Linear(NamedTuple):
    """A step that is linear in its newest prediction: ``x' = of_x * x + newest * m0 + sum(weight * value)``.

    m0 is what the step predicts at x, the clean latents. Weights are (B,), float64 on the CPU.
    """

    of_x: Tensor
    newest: Tensor
    past: tuple[tuple[Tensor, Tensor], ...] = ()
    """Weights and the remembered values (B, ...) that they belong to."""


NextStep = Callable[[Level, Level, History], Linear]
"""``linear(now, then, history)``: the step that comes next, before its prediction is known."""


@dataclass(frozen=True)
class Solver:
    """A solver's step and what it costs."""

    step: Step
    calls: int = 1
    """Model calls in one step."""
    linear: NextStep | None = None
    """Its next step as weights; None where a step has several predictions."""
    remembers: int = 0
    """Predictions in its history, at most; 0 = it keeps none."""


def predictions(count: int) -> Tensor:
    """The weight vectors (count, count, 1) of the remembered predictions, the newest first.

    Multistep solvers do the paper's algebra on such vectors instead of on latents: ``m[0] - m[1]`` stands for the
    difference of the last two predictions. What comes out are the (count, B) weights, in float64, with which one
    :func:`blend` sums the real ones.
    """
    return torch.eye(count, dtype=torch.float64)[:, :, None]


def where_finite(weights: Tensor, otherwise: Tensor) -> Tensor:
    """Each sample's weights (n, B), or the lower-order ones where a log-SNR in their history is infinite."""
    return torch.where(weights.isfinite().all(0), weights, otherwise)
