"""The trajectory target: teach the way from the model's own rolled-out state back onto its own accurate path.

A clean image is the wrong aim for a rolled-out state, which knows no more about that image than its source level did:
aiming there teaches a blur. The valid path of a sample is the model's own ODE solution. So: the rollout walked it
coarsely, to ``x`` at level t; walk it finely too, one coarse step further, to ``y`` at level t' = t - stride; and train
the next coarse step from ``x`` to land on ``y``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .device import moved
from .losses import target
from .predictions import PredictionType, blend, mix
from .rollout import NoisyBatch, longest_first
from .solvers import Level, Model, Solver, integrate, rows


@torch.no_grad()
def trajectory_target(
    model: Model, batch: NoisyBatch, *, reference_steps: int, solve: Solver, min_sigma: float = 1e-3
) -> Tensor:
    """What the network shall put out at ``batch.x`` (B, ...) so that its next coarse step lands on the fine path.

    The coarse step is an Euler (DDIM) step of the item's own stride, cut off at the clean end. The fine path starts in
    the state where the rollout started and takes ``reference_steps`` steps of ``solve`` for each coarse one: at most
    ``(lengths.max() + 1) * reference_steps`` times the solver's calls in batched forwards of the rolled-out items.
    ``model`` may be the live or the averaged one. Items that were not rolled out, and those below ``min_sigma``, where
    no coarse step is left, keep the ordinary target.
    """
    wanted, schedule = target(batch), batch.schedule
    _, sigma = schedule.coefficients(batch.timestep)
    order = longest_first(torch.where(sigma >= min_sigma, batch.lengths, 0))
    if len(order) == 0:
        return wanted
    there = moved(order, batch.x.device)
    lengths, timestep = batch.lengths[order], batch.timestep[order]
    following = (timestep - batch.stride[order]).clamp(min=schedule.clean_timestep)
    grid = fine_grid(batch.source[order], timestep, following, lengths, reference_steps)
    y = integrate(
        model,
        schedule,
        schedule.add_noise(batch.latents[there], batch.noise[there], grid[0]),
        grid,
        reference_steps * (lengths + 1),
        rows(batch.conditioning, there),
        solve,
    )
    now, then = Level.at(schedule, timestep), Level.at(schedule, following)
    return wanted.index_copy(0, there, aim(schedule.prediction, batch.x[there], y, now, then).to(wanted.dtype))


def fine_grid(source: Tensor, timestep: Tensor, following: Tensor, lengths: Tensor, parts: int) -> Tensor:
    """Timesteps (parts * (longest + 1) + 1, n): each column's coarse steps and the one after, in ``parts`` each."""
    coarse = torch.arange(parts * (int(lengths.max()) + 1) + 1, dtype=torch.float64)[:, None] / parts
    rollout = torch.lerp(source, timestep, (coarse / lengths).clamp(max=1))
    return torch.where(coarse < lengths, rollout, torch.lerp(timestep, following, (coarse - lengths).clamp(0, 1)))


def aim(kind: PredictionType, x: Tensor, y: Tensor, now: Level, then: Level) -> Tensor:
    """The output (B, ...) with which an Euler (DDIM) step from ``x`` at ``now`` lands on ``y`` at ``then``.

    Such a step is ``y = (sigma'/sigma) x + (alpha' - alpha sigma'/sigma) latents*``, so
    ``latents* = (y - (sigma'/sigma) x) / (alpha' - alpha sigma'/sigma)`` and ``noise* = (x - alpha latents*) / sigma``.
    For flow matching the output is simply ``(x - y) / (t - t')``.
    """
    a, b = mix(kind, now.alpha, now.sigma)
    ratio = then.sigma / now.sigma
    share = (a - b * now.alpha / now.sigma) / (then.alpha - now.alpha * ratio)
    return blend((share, y), (b / now.sigma - share * ratio, x))
