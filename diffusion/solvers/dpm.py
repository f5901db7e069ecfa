"""DPM-Solver++, the multistep variant (Lu et al., arXiv 2211.01095, algorithm 2; the third order from its code)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..predictions import blend
from .step import History, Level, Linear, Predictor, Solver, predictions, where_finite


def dpm(order: int = 2) -> Solver:
    """DPM-Solver++ of order 1..3. It starts at first order and needs no more than one model call a step."""

    def step(predict: Predictor, x: Tensor, now: Level, then: Level, history: History) -> tuple[Tensor, History]:
        history = history.after(now, predict.denoised(x, now), x, keep=order)
        weights = dpm_weights(history.levels, then)
        return blend((then.sigma / now.sigma, x), *zip(weights, history.denoised, strict=True)), history

    def linear(now: Level, then: Level, history: History) -> Linear:
        newest, *past = dpm_weights((now, *history.levels)[:order], then)
        return Linear(then.sigma / now.sigma, newest, tuple(zip(past, history.denoised, strict=False)))

    return Solver(step, linear=linear, remembers=order)


def dpm_weights(levels: tuple[Level, ...], then: Level) -> Tensor:
    """The weights (n, B) of the last n = 1..3 predictions in a step from ``levels[0]`` to ``then``.

    With ``h`` the gap in log-SNR, ``r0 = h_1 / h``, ``r1 = h_2 / h`` the earlier gaps and D1, D2 the estimates of the
    prediction's derivatives:

    order 1: ``x' = sigma'/sigma x - alpha' (e^-h - 1) m0``
    order 2: ``... - alpha' (e^-h - 1) / 2 D1``
    order 3: ``... + alpha' ((e^-h - 1) / h + 1) D1 - alpha' ((e^-h - 1 + h) / h**2 - 1/2) D2``

    D2 is half the second derivative, as in the authors' code, diffusers and k-diffusion, whose numbers these are. For
    a third-order method it would have to be doubled: measured, order 3 converges at order 2, with a smaller error.

    Order 1 where the step lands on sigma = 0. A gap that begins at pure noise is infinite: its difference drops out.
    """
    log_snr = [level.log_snr for level in levels]
    h, m = then.log_snr - log_snr[0], predictions(len(levels))
    phi = torch.expm1(-h)
    first = -then.alpha * phi * m[0]
    if len(levels) == 1:
        return first
    r0 = (log_snr[0] - log_snr[1]) / h
    slope = (m[0] - m[1]) / r0
    second = where_finite(first - then.alpha * phi / 2 * slope, first)
    if len(levels) == 2:
        return second
    r1 = (log_snr[1] - log_snr[2]) / h
    bend = slope - (m[1] - m[2]) / r1
    d1, d2 = slope + r0 / (r0 + r1) * bend, bend / (r0 + r1)
    third = first + then.alpha * ((phi / h + 1) * d1 - ((phi + h) / h**2 - 0.5) * d2)
    return where_finite(third, second)
