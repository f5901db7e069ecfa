"""Rolled-out items beside their own teacher-forced ones, as SOAR has them (Tencent Hunyuan, arXiv 2604.12617).

Nothing is replaced: each item keeps its ordinary loss at the level that was drawn for it, and from there its copy goes
on by itself, towards the image. The copy may then be noised again, with the same noise, to several levels, which gives
back what the rollout has lost and trains the way home from all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from ..device import moved
from ..noisy_batch import Memory, NoisyBatch
from ..predictions import blend
from ..rollout import roll_out
from ..schedules import Schedule
from ..share import Share
from ..solvers import History, Model, Solver
from .plan import Draw


@dataclass(frozen=True)
class Beside:
    """What becomes of the copies."""

    weight: float = 1.0
    """lambda, how much a copy's loss counts: in all ``(sum base + lambda sum copies) / (n + lambda n_copies)``."""
    levels: int = 0
    """Each rollout is noised again to so many levels; 0 = not at all."""
    upper: float = 1.0
    """The noisiest of them, as a share of the whole range."""


@torch.no_grad()
def beside(
    model: Model,
    batch: NoisyBatch,
    draw: Draw,
    solve: Solver,
    copies: Beside,
    generator: Generator,
    *,
    remember: bool = False,
    rolled_out: Callable[[Tensor], None] = lambda x: None,
) -> NoisyBatch:
    """The batch, and behind it the copies (:meth:`RolloutPlan.draw_down`) of its items, rolled out.

    Each has gone down from where its item is, in at most ``lengths.max()`` batched forwards. ``draw`` is that of the
    whole global batch. ``generator`` draws the levels to which they are noised again, after ``rolled_out(x)``.
    """
    chosen = draw.lengths.nonzero().flatten()
    if len(chosen) == 0:
        return batch
    copied, draw = batch.share.among(chosen), draw.of(batch.share)
    places = draw.lengths.nonzero().flatten()
    lengths, stride = draw.lengths[places], draw.stride[places]
    source = draw.source[places]
    target = (source - lengths * stride).clamp(min=lowest(batch.schedule, copies))
    walked = roll_out(
        model,
        items(batch, places, batch.dealt and copied).at(target),
        Draw(lengths, source, stride),
        solve,
        remember=remember,
    )
    rolled_out(batch.x)
    if copies.levels:
        walked = noised_again(walked, copies, generator)
    return weighed(joined(batch, walked), len(batch.x), batch.share.total, copies.weight)


def lowest(schedule: Schedule, copies: Beside) -> float:
    """The lowest timestep for the end of a rollout: the clean end, where nothing is learnt, only before new noise."""
    return schedule.clean_timestep if copies.levels else schedule.clean_timestep + 1


def items(batch: NoisyBatch, places: Tensor, dealt: Share | None) -> NoisyBatch:
    """Some items (n,) of a batch; their numbers are on the CPU, and may repeat. ``dealt`` is then their share."""
    return replace(batch.items(places), memory=(), dealt=dealt, timestep_of_all=None)


def noised_again(batch: NoisyBatch, copies: Beside, generator: Generator) -> NoisyBatch:
    """Each item ``copies.levels`` times, at levels drawn evenly from where it is to the noisiest.

    With the same noise, ``x' = (alpha'/alpha) x + (sigma' - sigma alpha'/alpha) noise``: for flow matching
    ``(1 - a) x + a noise`` with ``a = (sigma' - sigma) / (1 - sigma)``. What an item went astray shrinks with its
    latents; so its loss counts as at its new level. A sampler that goes on from there remembers nothing.
    """
    schedule = batch.schedule
    dealt = batch.dealt and batch.dealt.repeated(copies.levels)
    batch = items(batch, torch.arange(len(batch.x)).repeat_interleave(copies.levels), dealt)
    upper = schedule.clean_timestep + copies.upper * (schedule.noisy_timestep - schedule.clean_timestep)
    share = batch.share.of(torch.rand(batch.share.total, generator=generator, dtype=torch.float64))
    timestep = batch.timestep + share * (upper - batch.timestep).clamp(min=0)
    (alpha, sigma), (new_alpha, new_sigma) = (schedule.coefficients(level) for level in (batch.timestep, timestep))
    ratio = new_alpha / alpha
    x = blend((ratio, batch.x), (new_sigma - sigma * ratio, batch.noise))
    return replace(batch.at(timestep), x=x, memory=(Memory(torch.arange(len(x)), History()),))


def joined(batch: NoisyBatch, more: NoisyBatch) -> NoisyBatch:
    """Both, one behind the other; what the solver remembers is of the items behind."""
    count = len(batch.x)
    return replace(
        batch.followed_by(more),
        solve=more.solve,
        memory=tuple(Memory(count + part.places, part.history) for part in more.memory),
        dealt=batch.dealt and batch.dealt.followed_by(more.share),
        timestep_of_all=None,
    )


def weighed(batch: NoisyBatch, count: int, total: int, weight: float) -> NoisyBatch:
    """The mean over the batch made the published sum over base and copies.

    It has ``count`` items, and their copies behind them; the global batch, whose mean it is, has ``total`` items.
    """
    if weight == 1:
        return batch
    copies, size = len(batch.x) - count, batch.share.total
    each = torch.cat([torch.ones(count), torch.full((copies,), weight)]) * size / (total + weight * (size - total))
    each = moved(each, batch.x.device)
    return replace(batch, weight=each if batch.weight is None else batch.weight * each)
