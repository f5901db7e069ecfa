"""The same few items rolled out again and again, solver step by solver step, so that people can watch them improve."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor
from torch.nn import functional as F

from ...diffusion import seeds
from ...diffusion.chains import draw_ways
from ...diffusion.rollout import Draw, NoisyBatch, RolloutPlan, roll_out
from ...diffusion.solvers import Model, Solver
from ...training.stream import Step
from .preview import Colours, colours_of, linear, to_image, to_rgb

MOST_ITEMS = 8
MOST_STATES = 17
"""Of a longer rollout some solver steps are left out, evenly; source and target are always there."""
LARGEST_CELL = 64
"""Larger latents are made smaller: a sheet of noise does not compress, and a run keeps many."""


@dataclass(frozen=True)
class Inspected:
    """What is rolled out whenever somebody looks: always the same items, by the same lengths."""

    batch: NoisyBatch
    draw: Draw

    @classmethod
    def choose(cls, step: Step, batch: NoisyBatch, plan: RolloutPlan) -> Inspected:
        """Up to 8 items from all over the noise levels of the batch, with lengths all over 1..max_step_offset.

        Items too close to the noisy end for the longest rollout come in only where there are no others. Persistent
        rollouts are shown as they live, from the source of each to the last level that it trains.
        """
        count = min(MOST_ITEMS, len(batch.latents))
        if plan.rollout == "persistent":
            return cls.of_chains(step, batch, plan, count)
        highest = batch.schedule.noisy_timestep - plan.max_step_offset * max(plan.step_size, plan.step_size_max)
        fitting = max(count, int((batch.timestep <= highest).sum()))
        ranks = torch.linspace(fitting - 1, 0, count).round().long()
        chosen = torch.argsort(batch.timestep, stable=True)[ranks]
        generator = seeds.generator(step.run.seed, step.node_id, "inspection")
        lengths = torch.linspace(1, plan.max_step_offset, count).round().long()
        lengths = lengths[torch.randperm(count, generator=generator)]
        items = batch.items(chosen).at(batch.timestep[chosen])
        return cls(items, plan.place(items.timestep, batch.schedule, lengths, plan.strides(count, generator)))

    @classmethod
    def of_chains(cls, step: Step, batch: NoisyBatch, plan: RolloutPlan, count: int) -> Inspected:
        """The lives of as many chains, with the first images of the batch."""
        generator = seeds.generator(step.run.seed, step.node_id, "inspection")
        grid, steps = draw_ways(plan, batch.schedule, count, generator)
        lengths = steps - 1
        timestep = grid.gather(1, lengths[:, None])[:, 0]
        items = batch.items(slice(count)).at(timestep)
        return cls(items, Draw(lengths, grid[:, 0], (grid[:, 0] - timestep) / lengths.clamp(min=1)))


@dataclass(frozen=True)
class Film:
    """What the items looked like at each recorded solver step. An item that has arrived stays as it is."""

    steps: list[int]
    """The recorded solver steps, from 0 (source) to the longest rollout (target)."""
    timestep: Tensor
    """Where each item was (states, items)."""
    rolled_out: Tensor
    """(states, items, C, H, W), on the CPU."""
    teacher_forced: Tensor
    """The same items, perfectly noised to the same levels."""


def record(model: Model, items: Inspected, solve: Solver) -> Film:
    """Roll the items out with the weights as they are now, and keep what is seen on the way."""
    batch, (lengths, source, _) = items.batch, items.draw
    longest = int(lengths.max())
    steps = torch.linspace(0, longest, min(longest + 1, MOST_STATES)).round().long().tolist()
    seen: list[Tensor] = []

    def observe(number: int, x: Tensor, order: Tensor) -> None:
        if number in steps:
            seen.append(batch.x.index_copy(0, order.to(x.device), x.to(batch.x.dtype)).float().cpu())

    with torch.no_grad():
        roll_out(model, batch, items.draw, solve, observe=observe)
    progress = (torch.tensor(steps, dtype=torch.float64)[:, None] / lengths.clamp(min=1)).clamp(max=1)
    timestep = torch.lerp(source, batch.timestep, progress)
    forced = [batch.schedule.add_noise(batch.latents, batch.noise, level).float().cpu() for level in timestep]
    return Film(steps, timestep, torch.stack(seen or forced), torch.stack(forced))


def sheet_of(film: Film, told: Colours = None) -> tuple[Image, tuple[int, int]]:
    """All pictures of a film on one sheet, and the width and height of one of them.

    One column an item. First a row for each state of the teacher-forced latents, then the same of the rolled-out ones.
    ``told`` is what the data set says of their colours; of a VAE only the linear map is used.
    """
    told = linear(told)  # a VAE would decode dozens of states at full size, for cells of 64 pixels
    colours = torch.cat([to_rgb(row, told) for row in (*film.teacher_forced, *film.rolled_out)])
    shrink = LARGEST_CELL / max(colours.shape[-2:])
    if shrink < 1:
        colours = F.interpolate(colours, scale_factor=shrink, mode="area")
    items, (_, channels, height, width) = film.timestep.shape[1], colours.shape
    grid = colours.unflatten(0, (-1, items)).permute(2, 0, 3, 1, 4)  # (C, rows, H, items, W)
    return to_image(grid.reshape(channels, -1, items * width)), (width, height)


def facts_of(film: Film, items: Inspected) -> dict[str, Any]:
    """What a viewer has to know of a film beside its sheet."""
    drift = (film.rolled_out - film.teacher_forced).square().flatten(2).mean(2).sqrt()
    sigma = torch.stack([items.batch.schedule.coefficients(level)[1] for level in film.timestep])
    return {
        "items": film.timestep.shape[1],
        "states": len(film.steps),
        "solver_steps": film.steps,
        "lengths": items.draw.lengths.tolist(),
        "timesteps": rounded(film.timestep, 2),
        "sigmas": rounded(sigma, 4),
        "drift": rounded(drift, 6),
    }


def rounded(values: Tensor, digits: int) -> list[list[float]]:
    return [[round(value, digits) for value in row] for row in values.tolist()]


def first_batch(step: Step, batch: NoisyBatch) -> NoisyBatch:
    """The running node's batch in the very first step of the run, so that a resumed run shows the same items."""
    if step.index == 0 or step.current is None:
        return batch
    first: NoisyBatch = Step(step.run, 0).value(step.current.inputs["batch"])
    return first


def inspect(step: Step, batch: NoisyBatch, model: Model, plan: RolloutPlan, solve: Solver, sampler: str) -> None:
    """Record the running node's items and hand the film to the host, if this step is watched and somebody wants it.

    Whether the training itself rolls out at this step does not matter: probability, ramp and start_step are ignored.
    """
    if not (step.watched and plan.max_step_offset and step.run.host.wants("inspection")):
        return
    items = step.run.keep((step.current, "inspected"), lambda: Inspected.choose(step, first_batch(step, batch), plan))
    film = record(model, items, solve)
    sheet, cell = sheet_of(film, colours_of(step.run))
    facts = {"step": step.update, "node": step.node_id, "sampler": sampler, "cell": list(cell)}
    step.run.host.frames(step.node_id, step.update, sheet, facts | facts_of(film, items))
