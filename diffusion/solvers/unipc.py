"""UniPC: a unified predictor-corrector (Zhao et al., arXiv 2302.04867), predicting the clean latents."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from ..predictions import blend
from .step import History, Level, Linear, Predictor, Solver, predictions, where_finite

Variant = Literal["bh1", "bh2"]


def unipc(order: int = 2, variant: Variant = "bh2") -> Solver:
    """UniPC of order 1..3, with B(h) = h (``bh1``) or e^h - 1 (``bh2``).

    The corrector is free: it uses the prediction that the next step needs anyway. So each step first corrects the
    state it was given, then predicts the next one; the state at the end of a walk is a predicted one, as in diffusers.
    """

    def step(predict: Predictor, x: Tensor, now: Level, then: Level, history: History) -> tuple[Tensor, History]:
        denoised = predict.denoised(x, now)
        if history.x is not None:
            weights = unipc_weights(history.levels, now, variant, correct=True)
            values = zip(weights, (*history.denoised, denoised), strict=True)
            x = blend((now.sigma / history.levels[0].sigma, history.x), *values)
        history = history.after(now, denoised, x, keep=order)
        weights = unipc_weights(history.levels, then, variant)
        return blend((then.sigma / now.sigma, x), *zip(weights, history.denoised, strict=True)), history

    def linear(now: Level, then: Level, history: History) -> Linear:
        keep = then.sigma / now.sigma
        newest, *past = unipc_weights((now, *history.levels)[:order], then, variant)
        following = tuple(zip(past, history.denoised, strict=False))
        if history.x is None:
            return Linear(keep, newest, following)
        # The corrector starts anew where the last step did, and does not look at x itself.
        *corrected, own = keep * unipc_weights(history.levels, now, variant, correct=True)
        start = (keep * now.sigma / history.levels[0].sigma, history.x)
        corrector = tuple(zip(corrected, history.denoised, strict=True))
        return Linear(torch.zeros_like(keep), newest + own, (start, *corrector, *following))

    return Solver(step, linear=linear, remembers=order)


def unipc_weights(levels: tuple[Level, ...], then: Level, variant: Variant, *, correct: bool = False) -> Tensor:
    """The weights (n, B) of the last n = 1..3 predictions in a step from ``levels[0]`` to ``then``.

    With ``correct`` they are (n + 1, B): the last row belongs to the prediction at ``then`` itself. In log-SNR, with
    ``h`` the step and ``r_i = (lambda_i - lambda_0) / h`` the nodes (r = 1 at ``then``):

    ``x' = sigma'/sigma x - alpha' (e^-h - 1) m0 - alpha' B(h) sum_i rho_i (m_i - m0) / r_i``

    Each order needs all its nodes to be finite; samples without them (the step lands on sigma = 0, or the history
    begins at pure noise) get the next lower order.
    """
    log_snr = [level.log_snr for level in levels]
    h, m = then.log_snr - log_snr[0], predictions(len(levels) + correct)
    phi = torch.expm1(-h)
    scale = -h if variant == "bh1" else phi
    weights = first = -then.alpha * phi * m[0]
    for order in range(1 if correct else 2, len(levels) + 1):
        # Node i is the prediction m[i]; the corrector's own, at r = 1, is the last of all.
        nodes = [((past - log_snr[0]) / h, m[i]) for i, past in enumerate(log_snr[:order]) if i > 0]
        nodes += [(torch.ones_like(h), m[-1])] if correct else []
        rho = combination([r for r, _ in nodes], h, scale)
        differences = sum(rho_i * (m_i - m[0]) / r for rho_i, (r, m_i) in zip(rho, nodes, strict=True))
        weights = where_finite(first - then.alpha * scale * differences, weights)
    return weights


def combination(nodes: list[Tensor], h: Tensor, scale: Tensor) -> list[Tensor]:
    """The solution rho of ``sum_i rho_i r_i^(k-1) = k! h phi_(k+1)(-h) / B(h)``, k = 1..n: n tensors (B,).

    A single node gets 1/2, which the paper shows to be enough at second order (its appendix on UniPC-2).
    """
    if len(nodes) <= 1:
        return [torch.full_like(h, 0.5) for _ in nodes]
    phi, moments = torch.expm1(-h) / -h - 1, []
    for k in range(1, len(nodes) + 1):
        moments.append(phi * math.factorial(k) / scale)
        phi = phi / -h - 1 / math.factorial(k + 1)
    return [lagrange(node, [r for r in nodes if r is not node], moments) for node in nodes]


def lagrange(node: Tensor, others: list[Tensor], moments: list[Tensor]) -> Tensor:
    """A node's weight (B,) in the rule that gives ``r^k`` its moment k: Lagrange's polynomial, power by power.

    The same as solving the Vandermonde system, without a call to LAPACK in each step.
    """
    polynomial: list[Tensor | float] = [1.0]  # prod_j (r - r_j), the lowest power first
    size = torch.ones_like(node)  # and its value at the node
    for other in others:
        raised, kept = [0.0, *polynomial], [*polynomial, 0.0]
        polynomial = [up - other * same for up, same in zip(raised, kept, strict=True)]
        size = size * (node - other)
    total = sum((c * moment for c, moment in zip(polynomial, moments, strict=True)), torch.zeros_like(node))
    return total / size
