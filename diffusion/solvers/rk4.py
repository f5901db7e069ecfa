"""The classical fourth-order Runge-Kutta method, along straight paths."""

from __future__ import annotations

import torch
from torch import Tensor

from .step import History, Level, Predictor
from .straight import between, lands_untrained, share, slope_at, walked


def rk4(predict: Predictor, x: Tensor, now: Level, then: Level, history: History) -> tuple[Tensor, History]:
    """Fourth order, four model calls a step.

    A DDPM network was not trained on the clean end, and for ``sample`` its output there no longer tells the noise.
    So a DDPM step that lands there extrapolates the slope, k4 = 2 k3 - k1: second order, for that step alone. At the
    other end, pure noise, the slope would be unknown for ``epsilon`` alone, which :class:`DDPM` refuses there.
    """
    middle = between(predict.schedule, now, then)
    step = share(then) - share(now)

    def moved(to: Level, *slopes: tuple[Tensor, Tensor]) -> Tensor:
        return walked(x, now, to, step, *slopes)

    half, one = torch.full_like(step, 1 / 2), torch.ones_like(step)
    k1 = slope_at(predict, x, now)
    k2 = slope_at(predict, moved(middle, (half, k1)), middle)
    k3 = slope_at(predict, moved(middle, (half, k2)), middle)
    k4 = slope_at(predict, moved(then, (one, k3)), then)
    lands = lands_untrained(predict.schedule, then)
    outer, second, third = torch.where(lands, 0, one / 6), one / 3, torch.where(lands, 2 / 3, one / 3)
    return moved(then, (outer, k1), (second, k2), (third, k3), (outer, k4)), history
