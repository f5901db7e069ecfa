"""Heun's method, along straight paths (Karras et al., arXiv 2206.00364, algorithm 1, in our coordinates)."""

from __future__ import annotations

import torch
from torch import Tensor

from .step import History, Level, Predictor
from .straight import lands_untrained, share, slope_at, walked


def heun(predict: Predictor, x: Tensor, now: Level, then: Level, history: History) -> tuple[Tensor, History]:
    """Second order, two model calls a step: an Euler step, and once more with the mean of the slopes at both ends.

    A DDPM step that lands on the clean end, at which no network was trained, stays an Euler step, as in the paper.
    """
    step = share(then) - share(now)
    k1 = slope_at(predict, x, now)
    k2 = slope_at(predict, walked(x, now, then, step, (torch.ones_like(step), k1)), then)
    second = torch.where(lands_untrained(predict.schedule, then), 0, torch.full_like(step, 1 / 2))
    return walked(x, now, then, step, (1 - second, k1), (second, k2)), history
