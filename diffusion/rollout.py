"""Rollout: train on latents that the model denoised itself (scheduled sampling).

For each item: draw a length k, go k steps towards noise from the drawn timestep, noise the clean latents there with
the *same* noise, denoise k steps with the current weights, and train on what comes out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .device import moved
from .noisy_batch import Memory, NoisyBatch, noisy_batch
from .rollouts.guidance import UNGUIDED, Guidance
from .rollouts.plan import Draw, RolloutPlan
from .solvers import Conditioning, Model, Solver, ask, integrate

__all__ = [
    "Draw",
    "NoisyBatch",
    "Observer",
    "RolloutPlan",
    "longest_first",
    "noisy_batch",
    "ragged_grid",
    "roll_out",
    "with_clean_output",
]

Observer = Callable[[int, Tensor, Tensor], None]
"""``observe(step, x, order)``: the rolled-out items after ``step`` steps (n, ...), longest rollout first, and their
places in the batch (n,) on the CPU. Step 0 is the source state, before the first step."""


def longest_first(lengths: Tensor) -> Tensor:
    """The places (n,) of the items with a rollout, in the order in which a ragged batch needs them."""
    return torch.argsort(lengths, descending=True, stable=True)[: int((lengths > 0).sum())]


def ragged_grid(source: Tensor, target: Tensor, lengths: Tensor) -> Tensor:
    """Timesteps (steps + 1, B): each column goes evenly from source to target in its own length, then stays."""
    step = torch.arange(int(lengths.max()) + 1, dtype=torch.float64)[:, None]
    return torch.lerp(source, target, (step / lengths).clamp(max=1))


@torch.no_grad()
def roll_out(
    model: Model,
    batch: NoisyBatch,
    draw: Draw,
    solve: Solver,
    *,
    want_clean_output: bool = False,
    observe: Observer | None = None,
    guide: Guidance = UNGUIDED,
    remember: bool = False,
) -> NoisyBatch:
    """Denoise the chosen items from their source to their timestep with the current weights.

    At most ``lengths.max()`` times the solver's calls in batched forwards. The clean output that ReflexFlow wants
    rides along in the first forward that does not grow larger than the batch by it, and is never guided.
    ``remember`` keeps what the solver remembers in the batch, for a target of its own: a few latents for each item.
    """
    lengths, source, stride = draw
    order = longest_first(lengths)
    if len(order) == 0:
        return batch
    some = batch.items(order)
    passenger, memory = Passenger(model, some, room=len(batch.x)), list[Memory]()
    network = guide.of(passenger.share if want_clean_output else model)
    grid = ragged_grid(source[order], some.timestep, lengths[order])
    x = integrate(
        network,
        batch.schedule,
        batch.schedule.add_noise(some.latents, some.noise, grid[0]),
        grid,
        lengths[order],
        some.conditioning,
        solve,
        observe and (lambda step, x: observe(step, x, order)),
        (lambda samples, history: memory.append(Memory(order[samples], history))) if remember else None,
    )
    there, clean_output = moved(order, batch.x.device), None
    if want_clean_output:
        clean_output = torch.zeros_like(batch.x).index_copy(0, there, passenger.arrive())
    x = batch.x.index_copy(0, there, x)
    rolled = replace(batch, x=x, lengths=lengths, source=source, stride=stride)
    return replace(rolled, clean_output=clean_output, solve=solve, memory=tuple(memory))


@torch.no_grad()
def with_clean_output(model: Model, batch: NoisyBatch) -> NoisyBatch:
    """The batch with the network's output on the teacher-forced latents of its rolled-out items, in one forward."""
    places = batch.rolled.nonzero().flatten()
    if len(places) == 0:
        return batch
    some = batch.items(places)
    output = ask(model, some.teacher_forced, some.timestep, some.conditioning)
    there = moved(places, batch.x.device)
    return replace(batch, clean_output=torch.zeros_like(batch.x).index_copy(0, there, output))


@dataclass
class Passenger:
    """Items that need a prediction on their teacher-forced latents, and ride along in the first forward with room.

    They ride in no forward whose items are told more than ours, such as the guidance that they are sampled with.
    """

    model: Model
    items: NoisyBatch
    room: int
    """The most items that one forward may hold."""
    output: Tensor | None = None

    def share(self, x: Tensor, timestep: Tensor, conditioning: Conditioning) -> Tensor:
        """The model for other items; ours come along if they fit."""
        ours = self.items
        apart = conditioning.keys() != ours.conditioning.keys()
        if self.output is not None or apart or len(x) + len(ours.x) > self.room:
            return self.model(x, timestep, conditioning)
        told = moved(ours.timestep, x.device, timestep.dtype)
        together = {name: torch.cat([value, ours.conditioning[name]]) for name, value in conditioning.items()}
        output = self.model(torch.cat([x, ours.teacher_forced]), torch.cat([timestep, told]), together)
        self.output = output[len(x) :].to(x.dtype)
        return output[: len(x)]

    def arrive(self) -> Tensor:
        """The prediction (n, ...), in a forward of its own where no other had room."""
        if self.output is None:
            self.output = ask(self.model, self.items.teacher_forced, self.items.timestep, self.items.conditioning)
        return self.output
