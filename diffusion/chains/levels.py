"""The noise levels that persistent chains pass through.

A chain trains on every level that it passes. So that all chains together train each level as often as the schedule
draws it, levels are drawn as points under the curve of the schedule's density: a level t from the density, and a height
below the curve there. The levels t + j * stride at which the curve is above that height are a run; cut into blocks of
the chain's length, each block is the way of one chain, from its top to its bottom, and every point under the curve
lies on exactly one such way. A block must come once, not once for each of its levels: it is taken when the level drawn
is its top.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Generator, Tensor

from ..rollouts.plan import RolloutPlan
from ..schedules import Schedule

AT_ONCE = 64
"""Levels drawn together; those that are not the top of their block are drawn in vain."""


class Ways(NamedTuple):
    """The levels of some chains, on the CPU."""

    grid: Tensor
    """Timesteps (n, max_step_offset + 2), float64, from the source on; the last step may go beyond the clean end."""
    steps: Tensor
    """Solver steps of each chain (n,), int64: as many levels of the grid are trained on, the others do not count."""


def draw_ways(plan: RolloutPlan, schedule: Schedule, count: int, generator: Generator, *, midway: bool = False) -> Ways:
    """The ways of ``count`` new chains.

    ``midway``: as a look at chains under way finds them, at any of their levels and with the rest still to go. So begin
    those of the first step, which otherwise would all be at the top of their ways.
    """
    if count == 0:
        return Ways(torch.empty(0, plan.max_step_offset + 2, dtype=torch.float64), torch.empty(0, dtype=torch.int64))
    if plan.from_noise:
        return sampler_ways(plan, schedule, count, generator, midway)
    found: list[Ways] = []
    while sum(len(ways.steps) for ways in found) < count:
        found.append(blocks(plan, schedule, max(AT_ONCE, count), generator, midway))
    grid, steps = (torch.cat(parts)[:count] for parts in zip(*found, strict=True))
    return Ways(grid, steps)


def blocks(plan: RolloutPlan, schedule: Schedule, count: int, generator: Generator, midway: bool) -> Ways:
    """Ways below the density's curve: all of ``count`` drawn levels, or those that are tops of their blocks."""
    top = schedule.sample_timesteps(count, generator)
    stride, length = plan.strides(count, generator), plan.chain_lengths(count, generator)
    height, cut = torch.rand(2, count, generator=generator, dtype=torch.float64)
    height = height * schedule.density_at(top)
    reach = torch.arange(1, plan.max_step_offset + 1, dtype=torch.float64)
    far = reach * stride[:, None]
    above, below = (
        (schedule.density_at(level) > height[:, None]).cumprod(1).sum(1)
        for level in (top[:, None] + far, top[:, None] - far)
    )
    place = ((top / stride).floor() + (cut * length).floor()).remainder(length).long()  # counted from a block's bottom
    above, below = torch.minimum(above, length - 1 - place), torch.minimum(below, place)
    chosen = torch.full_like(above, midway, dtype=torch.bool) | (above == 0)
    grid = top[:, None] - torch.arange(plan.max_step_offset + 2, dtype=torch.float64) * stride[:, None]
    return Ways(grid[chosen], (below + 1)[chosen])


def sampler_ways(plan: RolloutPlan, schedule: Schedule, count: int, generator: Generator, midway: bool) -> Ways:
    """Ways down a sampler's own grid, from pure noise to the clean end, or as far as the longest rollout goes."""
    span = schedule.noisy_timestep - schedule.clean_timestep
    longest = plan.max_step_offset + 1
    ways = torch.full((count, longest + 1), schedule.clean_timestep, dtype=torch.float64)
    steps = torch.empty(count, dtype=torch.int64)
    for chain, stride in enumerate(plan.strides(count, generator).tolist()):
        way = schedule.sampling_timesteps(max(1, round(span / stride)))[: longest + 1]
        if midway:
            way = way[int(torch.randint(len(way) - 1, (1,), generator=generator)) :]
        ways[chain, : len(way)] = way
        steps[chain] = len(way) - 1
    return Ways(ways, steps)
