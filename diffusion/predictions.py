"""What a network predicts, and the conversions between prediction types.

Every type is a fixed mix ``output = a * latents + b * noise`` of the two unknowns in
``x = alpha * latents + sigma * noise``. Two equations, two unknowns: one formula serves all types.

===============  =========  =========  ==================================================
type             a          b          source
===============  =========  =========  ==================================================
``velocity``     -1         1          flow matching (Lipman et al., arXiv 2210.02747)
``epsilon``      0          1          DDPM (Ho et al., arXiv 2006.11239)
``v_prediction`` -sigma     alpha      progressive distillation (Salimans & Ho, 2202.00512)
``sample``       1          0          DDPM, the clean latents themselves
===============  =========  =========  ==================================================
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from .device import moved

PredictionType = Literal["velocity", "epsilon", "v_prediction", "sample"]

PREDICTION_TYPES: tuple[PredictionType, ...] = ("velocity", "epsilon", "v_prediction", "sample")


def per_sample(level: Tensor, like: Tensor) -> Tensor:
    """A level (B,) as a (B, 1, ..., 1) factor for ``like`` (B, ...)."""
    return factors(level[None], like)[0]


def blend(*terms: tuple[Tensor, Tensor]) -> Tensor:
    """``sum(weight * value)`` over pairs of a weight (B,) on the CPU and a value (B, ...) on the device.

    All weights travel to the device in one copy, already worked out in float64.
    """
    first = terms[0][1]
    weights = factors(torch.stack([weight for weight, _ in terms]), first)
    total = weights[0] * first
    for weight, (_, value) in zip(weights[1:], terms[1:], strict=True):
        total = total + weight * value
    return total


def factors(levels: Tensor, like: Tensor) -> Tensor:
    """Levels (n, B) as n (B, 1, ..., 1) factors for ``like`` (B, ...): the one place where levels meet latents."""
    if levels.shape[1:] != like.shape[:1]:
        raise ValueError(f"levels of shape {tuple(levels.shape)} do not fit a batch of {tuple(like.shape)}")
    return moved(levels, like.device, like.dtype).reshape(*levels.shape, *[1] * (like.dim() - 1))


def per_item(values: Tensor) -> Tensor:
    """The mean of each sample: (B, ...) -> (B,)."""
    return values.flatten(1).mean(1)


def mix(kind: PredictionType, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """The weights (a, b) of ``output = a * latents + b * noise``, each of the shape of ``alpha``."""
    zero, one = torch.zeros_like(alpha), torch.ones_like(alpha)
    if kind == "velocity":
        return -one, one
    if kind == "epsilon":
        return zero, one
    if kind == "v_prediction":
        return -sigma, alpha
    if kind == "sample":
        return one, zero
    raise ValueError(f"unknown prediction type {kind!r}: one of {', '.join(PREDICTION_TYPES)}")


def determinant(kind: PredictionType, alpha: Tensor, sigma: Tensor) -> Tensor:
    """``a * sigma - b * alpha`` (B,): zero where the output and ``x`` are the same equation twice.

    That is where alpha = 0 for ``epsilon`` and where sigma = 0 for ``sample``; nowhere for the other two.
    """
    a, b = mix(kind, alpha, sigma)
    return a * sigma - b * alpha


def to_target(kind: PredictionType, latents: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """What a perfect network would put out for these latents and this noise (B, ...)."""
    a, b = mix(kind, alpha, sigma)
    return blend((a, latents), (b, noise))


def to_denoised(kind: PredictionType, output: Tensor, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """The predicted clean latents (B, ...) from the network's output at ``x``."""
    _, b = mix(kind, alpha, sigma)
    scale = 1 / determinant(kind, alpha, sigma)
    return blend((-b * scale, x), (sigma * scale, output))
