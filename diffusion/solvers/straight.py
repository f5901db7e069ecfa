"""The straight coordinates in which the Runge-Kutta methods walk.

Every schedule is a flow in disguise: with ``y = x / (alpha + sigma)`` and ``tau = sigma / (alpha + sigma)``,
``y = (1 - tau) * latents + tau * noise``, and its slope is ``dy/dtau = noise - latents``. That is finite from end to
end, and a path whose prediction stands still is a straight line, which every such method follows exactly. For flow
matching y is x and tau is sigma.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..predictions import blend, determinant, mix
from ..schedules import Schedule
from .step import Level, Predictor


def walked(x: Tensor, now: Level, to: Level, step: Tensor, *slopes: tuple[Tensor, Tensor]) -> Tensor:
    """The state (B, ...) at ``to`` after ``step`` (B,) in tau from ``x`` at ``now``, along weighted slopes."""
    size = to.alpha + to.sigma
    terms = ((size * step * weight, slope) for weight, slope in slopes)
    return blend((size / (now.alpha + now.sigma), x), *terms)


def slope_at(predict: Predictor, x: Tensor, level: Level) -> Tensor:
    """The predicted ``noise - latents`` (B, ...), from ``output = a * latents + b * noise``; 0 where it is unknown."""
    output, kind = predict.output(x, level), predict.schedule.prediction
    a, b = mix(kind, level.alpha, level.sigma)
    size = determinant(kind, level.alpha, level.sigma)
    scale = torch.where(size == 0, 0, 1 / size)
    return blend(((a + b) * scale, x), (-(level.alpha + level.sigma) * scale, output))


def share(level: Level) -> Tensor:
    """``tau = sigma / (alpha + sigma)`` (B,): 0 clean, 1 noise."""
    return level.sigma / (level.alpha + level.sigma)


def between(schedule: Schedule, now: Level, then: Level) -> Level:
    """The level half-way in tau."""
    tau = (share(now) + share(then)) / 2
    return Level.at(schedule, schedule.timestep_at(torch.atan2(tau, 1 - tau)))


def lands_untrained(schedule: Schedule, then: Level) -> Tensor:
    """Which samples (B,) a step takes to a clean end at which the network was not trained: all but flow matching's."""
    return (then.sigma == 0) & (not schedule.is_flow_matching)
