"""Losses, one value per sample: plain diffusion losses, and ReflexFlow's two terms."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from .device import moved
from .noisy_batch import NoisyBatch
from .predictions import determinant, per_sample, to_target
from .predictions import per_item as per_item  # one of the losses' public names
from .schedules import Schedule

LossType = Literal["mse", "huber"]
TargetType = Literal["original", "clean"]
FrequencyNorm = Literal["mean", "l1"]


def target(batch: NoisyBatch, kind: TargetType = "original") -> Tensor:
    """What the network shall put out at ``batch.x`` (B, ...).

    ``original``: the drawn noise stays the target, as in SimpleTuner. ``clean``: the noise is re-derived from the
    latents the item really has, ``noise* = (x - alpha * latents) / sigma``, so that the target points from the
    rolled-out latents straight at the clean ones (markup2im, ICLR 2023). The two agree on items that were not rolled
    out, also where a perturbation has moved them: that nobody tells the network of it is what it is for.
    """
    alpha, sigma = batch.schedule.coefficients(batch.timestep)
    noise = batch.noise
    if kind == "clean":
        share = torch.where(batch.rolled, 1 / sigma.clamp(min=1e-3), 0.0)
        noise = noise + per_sample(share, batch.x) * (batch.x - batch.teacher_forced)
    return to_target(batch.schedule.prediction, batch.latents, noise, alpha, sigma)


def target_weight(batch: NoisyBatch, kind: str) -> Tensor:
    """How much each item's loss counts (B,), float64 on the CPU; 1 for ``original`` and for items not rolled out.

    The two targets that correct a drift divide it by a distance to the clean end, so that a few items near that end
    would own the whole loss. ``clean``: the loss counts as at the source level, ``(sigma / sigma_source)**2``, which is
    all that the rolled-out latents know. ``trajectory``: the error counts where the coarse step lands,
    ``((t - t') / stride)**2``, which is less than 1 only where that step was cut off at the clean end.
    """
    ones = torch.ones_like(batch.timestep)
    if kind == "clean":
        (_, sigma), (_, source) = (batch.schedule.coefficients(at) for at in (batch.timestep, batch.source))
        return torch.where(batch.rolled, (sigma / source.clamp(min=1e-9)) ** 2, ones)
    if kind == "trajectory":
        step = torch.minimum(batch.timestep - batch.schedule.clean_timestep, batch.stride)
        return torch.where(batch.stride > 0, (step / batch.stride.clamp(min=1e-9)) ** 2, ones)
    return ones


def elementwise(output: Tensor, wanted: Tensor, loss_type: LossType = "mse", huber_c: float = 0.1) -> Tensor:
    """The loss of each element (B, ...), in float32.

    ``huber`` is the pseudo-Huber loss ``2c * (sqrt(error**2 + c**2) - c)`` (arXiv 2403.16728): quadratic below c.
    """
    error = output.float() - wanted.float()
    if loss_type == "mse":
        return error**2
    return 2 * huber_c * ((error**2 + huber_c**2).sqrt() - huber_c)


def masked_mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """The mean of each sample (B, ...) -> (B,) over what the mask (B, 1, H, W) in 0..1 shows; None shows everything.

    Divided by the mask's own mean, as ai-toolkit does and OneTrainer can, so that a small subject makes no small loss.
    Where the mask is 0 no gradient flows, to the last bit; a sample whose mask is empty has the loss 0.
    """
    if mask is None:
        return per_item(values)
    return per_item(mask * values) / per_item(mask).clamp(min=1e-6)


def weighted(loss: Tensor, weight: Tensor | None) -> Tensor:
    """Each sample's loss (B,) times how much it counts (B,); None counts all alike."""
    return loss if weight is None else loss * per_sample(weight, loss)


def min_snr_weight(schedule: Schedule, timestep: Tensor, gamma: float) -> Tensor:
    """Min-SNR weighting (arXiv 2303.09556) as a factor (B,) on the loss in the network's own prediction type.

    ``min(snr, gamma)`` weighs the error of the predicted latents; an output error is ``sigma / determinant`` times as
    large there. For epsilon this gives the paper's ``min(snr, gamma) / snr``, for v ``min(snr, gamma) / (snr + 1)``.
    """
    alpha, sigma = schedule.coefficients(timestep)
    return torch.minimum(alpha**2, gamma * sigma**2) / determinant(schedule.prediction, alpha, sigma) ** 2


def misdirection(velocity: Tensor, away: Tensor, mask: Tensor | None = None) -> Tensor:
    """How far two directions (B, ...) differ: ``|| v / |v| - d / |d| ||**2 = 2 - 2 cos(v, d)`` (B,), 0..4, float32.

    With a mask (B, 1, H, W) they are the directions of what it shows.
    """
    if mask is not None:
        # Both lengths and the dot product then count each element as often as the mask says.
        velocity, away = (mask.sqrt() * direction.float() for direction in (velocity, away))
    return 2 - 2 * F.cosine_similarity(velocity.float().flatten(1), away.float().flatten(1), dim=1, eps=1e-8)


def anti_drift(output: Tensor, batch: NoisyBatch, min_sigma: float = 0.01) -> Tensor:
    """ReflexFlow's anti-drift regulariser (B,): the velocity shall point along ``x - latents``, away from the data.

    Zero for items that were not rolled out, and below ``min_sigma``, where that direction is mostly rounding noise.
    """
    _, sigma = batch.schedule.coefficients(batch.timestep)
    counts = batch.rolled & (sigma >= min_sigma)
    error = misdirection(output, batch.x - batch.latents, batch.mask)
    return moved(counts, error.device, error.dtype) * error


def compensation(
    missing: Tensor, alpha: float = 1.0, norm: FrequencyNorm = "mean", mask: Tensor | None = None
) -> Tensor:
    """The weight ``1 + alpha * missing / norm(missing)`` (B, ...), clamped at 0, in float32 and without gradient.

    ``mean``: the norm is the mean magnitude of the sample, so that alpha means the same at every size. ``l1``: the sum
    of magnitudes, as in SimpleTuner; at real latent sizes all weights are then 1 to four digits. What the mask
    (B, 1, H, W) hides is in neither.
    """
    missing = missing.detach().float()
    size = missing.abs()
    total = size if mask is None else mask * size
    scale = (masked_mean(size, mask) if norm == "mean" else total.flatten(1).sum(1)).clamp(min=1e-8)
    return (1 + alpha * missing / scale.reshape(-1, *[1] * (missing.dim() - 1))).clamp(min=0)


def frequency_weight(output: Tensor, batch: NoisyBatch, alpha: float = 1.0, norm: FrequencyNorm = "mean") -> Tensor:
    """ReflexFlow's frequency compensation: a weight (B, ...) >= 0 on each element's loss, without gradient.

    :func:`compensation` of ``clean - biased``, where biased is the output on the rolled-out latents and clean the one
    on the teacher-forced latents: what rolling out took away, mostly low frequencies, counts more. Items that were
    not rolled out get 1.
    """
    if batch.clean_output is None:
        return torch.ones_like(output)
    counts = per_sample(batch.rolled, output.float())
    return compensation(counts * (batch.clean_output - output.detach()), alpha, norm, batch.mask)
