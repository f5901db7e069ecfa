"""Euler's method, which for DDPM schedules is DDIM."""

from __future__ import annotations

from torch import Tensor

from ..predictions import blend
from .step import History, Level, Linear, Predictor


def transfer(x: Tensor, denoised: Tensor, now: Level, then: Level) -> Tensor:
    """Move ``x`` (B, ...) to the next level while the prediction stands still: the exact first-order step.

    DDIM (arXiv 2010.02502, eq. 12 without noise); for flow matching it is Euler's step along the velocity.
    """
    ratio = then.sigma / now.sigma
    return blend((ratio, x), (then.alpha - now.alpha * ratio, denoised))


def euler(predict: Predictor, x: Tensor, now: Level, then: Level, history: History) -> tuple[Tensor, History]:
    """First order; for DDPM schedules this is DDIM."""
    return transfer(x, predict.denoised(x, now), now, then), history


def euler_linear(now: Level, then: Level, history: History) -> Linear:
    """The weights of :func:`euler`'s step."""
    ratio = then.sigma / now.sigma
    return Linear(ratio, then.alpha - now.alpha * ratio)
