"""ReflexFlow's objectives (arXiv 2512.04904; its successor is DEFAR, arXiv 2606.28226), for flow matching.

Both add to the flow-matching loss an anti-drift term (the predicted velocity shall point back at the data) and a weight
that makes up for what exposure bias took away, mostly low frequencies. They return the loss of each sample (B,) and
its parts by name, all on the device: ``flow`` and ``anti_drift`` (B,), before beta1 and beta2, and the least, mean and
largest weight. Where the batch has a mask, errors and directions are those of what it shows.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from .device import moved
from .losses import (
    FrequencyNorm,
    LossType,
    anti_drift,
    compensation,
    elementwise,
    frequency_weight,
    masked_mean,
    misdirection,
    weighted,
)
from .noisy_batch import NoisyBatch
from .predictions import per_sample, to_target
from .schedules import Schedule
from .solvers import Model, ask

Parts = dict[str, Tensor]


def spec(
    output: Tensor,
    wanted: Tensor,
    batch: NoisyBatch,
    *,
    alpha: float = 1.0,
    beta1: float = 10.0,
    beta2: float = 1.0,
    fc_norm: FrequencyNorm = "mean",
    min_sigma: float = 0.01,
    loss_type: LossType = "mse",
    huber_c: float = 0.1,
    item_weight: Tensor | None = None,
) -> tuple[Tensor, Parts]:
    """ReflexFlow on rolled-out latents: ``beta2 * mean(w * error**2) + beta1 * anti_drift``, one forward in all.

    ``output`` and ``wanted`` (B, ...) are the network's output at ``batch.x`` and what it should be; w is
    :func:`frequency_weight`; ``item_weight`` (B,) is :func:`target_weight`, for the first term. Items that
    were not rolled out have the plain loss ``mean(error**2)``, untouched by either beta.
    """
    refuse_unless_flow(batch.schedule)
    weight = frequency_weight(output, batch, alpha, fc_norm)
    flow = masked_mean(weight * elementwise(output, wanted, loss_type, huber_c), batch.mask)
    flow = weighted(flow, item_weight)
    drift = anti_drift(output, batch, min_sigma)
    gain = moved(torch.where(batch.rolled, beta2, 1.0), flow.device, flow.dtype)
    rolled = moved(batch.rolled.nonzero().flatten(), flow.device)
    return gain * flow + beta1 * drift, parts(flow, drift, weight[rolled] if len(rolled) else weight)


def defar(
    model: Model,
    batch: NoisyBatch,
    *,
    alpha: float = 1.0,
    beta1: float = 10.0,
    beta2: float = 1.0,
    fc_norm: FrequencyNorm = "mean",
    generator: Generator,
    detach_drift: bool = False,
    min_sigma: float = 0.01,
) -> tuple[Tensor, Parts]:
    """DEFAR: the drift is one Euler step of the network that trains, over a random span, for every item.

    1. ``v0 = v(x, s0)`` on the teacher-forced latents; the flow-matching error is taken here
    2. ``s1 = s0 * U(0, 1)``; one step there, ``x1 = x + (s1 - s0) * v0``, through which the gradient flows on into v0,
       unless ``detach_drift``
    3. ``v1 = v(x1, s1)`` shall point along ``x1 - latents``: the anti-drift term, counted from ``min_sigma`` on
    4. without gradient, ``v(teacher-forced latents, s1) - v1`` is what the drift took away: the weight on the error

    ``beta2 * mean(w * error**2) + beta1 * anti_drift``. Three forwards, two with gradient. It makes its own drift, so
    ``batch.x``, rolled out or not, is not looked at. The exact form of w is not public; here it multiplies the
    squared error, as in :func:`spec`.
    """
    schedule, conditioning = batch.schedule, batch.conditioning
    refuse_unless_flow(schedule)
    later = batch.timestep * batch.share.of(torch.rand(batch.share.total, generator=generator, dtype=torch.float64))
    (alpha0, sigma0), (_, sigma1) = schedule.coefficients(batch.timestep), schedule.coefficients(later)

    start = ask(model, batch.teacher_forced, batch.timestep, conditioning)
    step = start.detach() if detach_drift else start
    drifted = batch.teacher_forced + per_sample(sigma1 - sigma0, step) * step
    biased = ask(model, drifted, later, conditioning)
    with torch.no_grad():
        clean = ask(model, schedule.add_noise(batch.latents, batch.noise, later), later, conditioning)

    weight = compensation(clean - biased, alpha, fc_norm, batch.mask)
    wanted = to_target(schedule.prediction, batch.latents, batch.noise, alpha0, sigma0)
    flow = masked_mean(weight * elementwise(start, wanted), batch.mask)
    counts = moved(sigma1 >= min_sigma, flow.device, flow.dtype)
    drift = counts * misdirection(biased, drifted - batch.latents, batch.mask)
    return beta2 * flow + beta1 * drift, parts(flow, drift, weight)


def parts(flow: Tensor, drift: Tensor, weight: Tensor) -> Parts:
    """What a report may want to know, by name."""
    named = {"flow": flow, "anti_drift": drift}
    named |= {"weight_min": weight.min(), "weight_mean": weight.mean(), "weight_max": weight.max()}
    return {name: value.detach() for name, value in named.items()}


def refuse_unless_flow(schedule: Schedule) -> None:
    if not schedule.is_flow_matching:
        raise ValueError(f"ReflexFlow is for flow matching only; this schedule predicts {schedule.prediction}")
