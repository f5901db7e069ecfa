"""Walk a whole ragged batch down its grid, or samples from pure noise down a sampler's."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..schedules import Schedule
from .step import Conditioning, History, Level, Model, Predictor, Solver, rows


def integrate(
    model: Model,
    schedule: Schedule,
    x: Tensor,
    grid: Tensor,
    lengths: Tensor,
    conditioning: Conditioning,
    solve: Solver,
    observe: Callable[[int, Tensor], None] | None = None,
    arrive: Callable[[slice, History], None] | None = None,
) -> Tensor:
    """Walk each sample down its own column of the grid; a step is one batched forward on those still under way.

    ``x`` (B, ...); ``grid`` (steps + 1, B) of timesteps and ``lengths`` (B,) of steps, longest first, both on the
    CPU. ``observe(step, x)`` sees the whole batch before the first step (0) and after each; ``arrive(some, history)``
    is told of those whose column ends, and of what the solver remembers of them. Returns the latents (B, ...) at the
    end of each column.
    """
    levels, history = Level.at(schedule, grid), History()
    if observe is not None:
        observe(0, x)
    for step in range(int(lengths.max()) if len(lengths) else 0):
        active = int((lengths > step).sum())
        now, then = levels.row(step).first(active), levels.row(step + 1).first(active)
        predict = Predictor(model, rows(conditioning, slice(active)), schedule)
        moved, history = solve.step(predict, x[:active], now, then, history.first(active))
        x = torch.cat([moved, x[active:]])
        going = int((lengths > step + 1).sum())
        if arrive is not None and going < active:
            arrive(slice(going, active), history.items(slice(going, active)))
        if observe is not None:
            observe(step + 1, x)
    return x


def from_noise(
    model: Model,
    schedule: Schedule,
    noise: Tensor,
    steps: int,
    conditioning: Conditioning,
    solve: Solver,
    observe: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """The samples (B, ...) that a sampler of so many steps makes of the noise (B, ...); ``observe`` as above."""
    grid = schedule.sampling_timesteps(steps)[:, None].expand(-1, len(noise))
    x = schedule.add_noise(torch.zeros_like(noise), noise, grid[0])
    return integrate(model, schedule, x, grid, torch.full((len(noise),), steps), conditioning, solve, observe)
