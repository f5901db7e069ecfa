"""The classical fourth-order Runge-Kutta method, along straight paths."""

from __future__ import annotations

import torch
from torch import Tensor

from ..predictions import blend, mix
from ..schedules import Schedule
from .step import History, Level, Predictor


def rk4(predict: Predictor, x: Tensor, now: Level, then: Level, history: History) -> tuple[Tensor, History]:
    """Fourth order, four model calls a step.

    Every schedule is a flow in disguise: with ``y = x / (alpha + sigma)`` and ``tau = sigma / (alpha + sigma)``,
    ``y = (1 - tau) * latents + tau * noise``, and its slope is ``dy/dtau = noise - latents``. That is finite from end
    to end, and a path whose prediction stands still is a straight line, which the method follows exactly. For flow
    matching y is x and tau is sigma.

    A DDPM network was not trained on the clean end, and for ``sample`` its output there no longer tells the noise.
    So a DDPM step that lands there extrapolates the slope, k4 = 2 k3 - k1: second order, for that step alone. At the
    other end, pure noise, the slope would be unknown for ``epsilon`` alone, which :class:`DDPM` refuses there.
    """
    middle = between(predict.schedule, now, then)
    step = share(then) - share(now)

    def moved(to: Level, *slopes: tuple[Tensor, Tensor]) -> Tensor:
        size = to.alpha + to.sigma
        terms = ((size * step * weight, slope) for weight, slope in slopes)
        return blend((size / (now.alpha + now.sigma), x), *terms)

    half, one = torch.full_like(step, 1 / 2), torch.ones_like(step)
    k1 = slope_at(predict, x, now)
    k2 = slope_at(predict, moved(middle, (half, k1)), middle)
    k3 = slope_at(predict, moved(middle, (half, k2)), middle)
    k4 = slope_at(predict, moved(then, (one, k3)), then)
    lands = (then.sigma == 0) & (not predict.schedule.is_flow_matching)
    outer, second, third = torch.where(lands, 0, one / 6), one / 3, torch.where(lands, 2 / 3, one / 3)
    return moved(then, (outer, k1), (second, k2), (third, k3), (outer, k4)), history


def slope_at(predict: Predictor, x: Tensor, level: Level) -> Tensor:
    """The predicted ``noise - latents`` (B, ...), from ``output = a * latents + b * noise``; 0 where it is unknown."""
    output = predict.output(x, level)
    a, b = mix(predict.schedule.prediction, level.alpha, level.sigma)
    determinant = a * level.sigma - b * level.alpha
    scale = torch.where(determinant == 0, 0, 1 / determinant)
    return blend(((a + b) * scale, x), (-(level.alpha + level.sigma) * scale, output))


def share(level: Level) -> Tensor:
    """``tau = sigma / (alpha + sigma)`` (B,): 0 clean, 1 noise."""
    return level.sigma / (level.alpha + level.sigma)


def between(schedule: Schedule, now: Level, then: Level) -> Level:
    """The level half-way in tau."""
    tau = (share(now) + share(then)) / 2
    return Level.at(schedule, schedule.timestep_at(torch.atan2(tau, 1 - tau)))
