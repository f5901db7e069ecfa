"""The trajectory target: teach the way from the model's own rolled-out state back onto its own accurate path.

A clean image is the wrong aim for a rolled-out state, which knows no more about that image than its source level did:
aiming there teaches a blur. The valid path of a sample is the model's own ODE solution. So: the rollout walked it
coarsely, to ``x`` at level t; walk it finely too, one coarse step further, to ``y`` at level t' = t - stride; and train
the next coarse step from ``x`` to land on ``y``.

Which step that is depends on the solver that people will sample with. Those that are linear in their newest prediction
can be asked for the one output that lands there, whatever they remember of the steps before.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .device import moved
from .losses import target
from .noisy_batch import Memory, NoisyBatch
from .predictions import PredictionType, blend, mix
from .rollout import longest_first
from .solvers import History, Level, Linear, Model, NextStep, Solver, euler_linear, integrate


@dataclass(frozen=True)
class FinePath:
    """Where the fine path of some items is after their next coarse step."""

    places: Tensor
    """The items' places in the batch (n,), int64 on the CPU."""
    y: Tensor
    """Its states (n, ...)."""


@torch.no_grad()
def fine_path(
    model: Model, batch: NoisyBatch, *, reference_steps: int, solve: Solver, min_sigma: float = 1e-3
) -> FinePath:
    """Walk the rolled-out items finely from the state where their rollout started to the end of the next coarse step.

    ``reference_steps`` steps of ``solve`` for each coarse one: at most ``(lengths.max() + 1) * reference_steps`` times
    the solver's calls in batched forwards of the rolled-out items. ``model`` may be the live or the averaged one. Items
    that were not rolled out, and those below ``min_sigma``, where no coarse step is left, have no such path. Where the
    batch's fine paths are known up to here (persistent chains), it is the last step alone.
    """
    schedule = batch.schedule
    if batch.fine is not None:
        return further(model, batch, batch.fine, reference_steps, solve)
    _, sigma = schedule.coefficients(batch.timestep)
    order = longest_first(torch.where(sigma >= min_sigma, batch.lengths, 0))
    some = batch.items(order)
    if len(order) == 0:
        return FinePath(order, some.x)
    lengths = torch.where(some.source > some.timestep, some.lengths, 0)  # what was noised again begins where it is
    grid = fine_grid(some.source, some.timestep, following(some), lengths, reference_steps)
    start = schedule.add_noise(some.latents, some.noise, grid[0])
    y = integrate(model, schedule, start, grid, reference_steps * (lengths + 1), some.conditioning, solve)
    return FinePath(order, y)


def further(model: Model, batch: NoisyBatch, fine: Tensor, reference_steps: int, solve: Solver) -> FinePath:
    """One coarse step further on fine paths that are known up to here: those of the batch's first items (n, ...)."""
    places, some = torch.arange(len(fine)), batch.items(slice(len(fine)))
    grid = fine_grid(some.timestep, some.timestep, following(some), torch.zeros_like(places), reference_steps)
    steps = torch.full_like(places, reference_steps)
    return FinePath(places, integrate(model, batch.schedule, fine, grid, steps, some.conditioning, solve))


def target_onto(path: FinePath, batch: NoisyBatch, sampler: Solver | None = None) -> Tensor:
    """The output (B, ...) at ``batch.x`` with which the next coarse step lands on the path; elsewhere the usual target.

    The coarse step has the item's own stride, cut off at the clean end. It is Euler's (DDIM's), or that of ``sampler``,
    the solver of the rollout, which goes on from what it remembers. Where a step of that solver asks the network more
    than once (heun, rk4) no single output decides where it lands: it is Euler's then, too.
    """
    wanted = target(batch)
    if len(path.places) == 0:
        return wanted
    linear: NextStep = euler_linear
    memory: tuple[Memory, ...] = (Memory(path.places, History()),)
    if sampler is not None and sampler.linear is not None:
        linear, memory = sampler.linear, batch.memory
        if not memory:
            raise ValueError("the target of the rollout's own sampler needs what it remembers: roll out with remember")
    y = batch.x.index_copy(0, moved(path.places, batch.x.device), path.y.to(batch.x.dtype))
    now, then = (Level.at(batch.schedule, level) for level in (batch.timestep, following(batch)))
    aimed = wanted
    for part in memory:
        there = moved(part.places, batch.x.device)
        level, next_level = now.items(part.places), then.items(part.places)
        output = aim(
            batch.schedule.prediction, batch.x[there], y[there], level, linear(level, next_level, part.history)
        )
        aimed = aimed.index_copy(0, there, output.to(wanted.dtype))
    chosen = moved(path.places, wanted.device)
    return wanted.index_copy(0, chosen, aimed[chosen])


def following(batch: NoisyBatch) -> Tensor:
    """The timesteps (B,) one coarse step after ``batch.timestep``."""
    return (batch.timestep - batch.stride).clamp(min=batch.schedule.clean_timestep)


def fine_grid(source: Tensor, timestep: Tensor, following: Tensor, lengths: Tensor, parts: int) -> Tensor:
    """Timesteps (parts * (longest + 1) + 1, n): each column's coarse steps and the one after, in ``parts`` each."""
    coarse = torch.arange(parts * (int(lengths.max()) + 1) + 1, dtype=torch.float64)[:, None] / parts
    rollout = torch.lerp(source, timestep, (coarse / lengths).clamp(max=1))
    return torch.where(coarse < lengths, rollout, torch.lerp(timestep, following, (coarse - lengths).clamp(0, 1)))


def aim(kind: PredictionType, x: Tensor, y: Tensor, now: Level, step: Linear) -> Tensor:
    """The output (B, ...) at ``x`` with which the step from ``now`` lands on ``y``.

    The step is ``y = of_x x + newest latents* + past``, so ``latents* = (y - of_x x - past) / newest``, and
    ``noise* = (x - alpha latents*) / sigma``. For Euler's step of flow matching the output is ``(x - y) / (t - t')``.
    """
    a, b = mix(kind, now.alpha, now.sigma)
    share = (a - b * now.alpha / now.sigma) / step.newest
    past = ((-share * weight, value) for weight, value in step.past)
    return blend((share, y), (b / now.sigma - share * step.of_x, x), *past)
