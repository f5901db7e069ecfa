"""Persistent rollouts: chains that live across training steps, so that rolling out costs no forward of its own.

A chain sits at one place of the batch. Each training step trains on its state, and the very same forward, without its
gradient, is the prediction with which its solver goes on by one step. When its way is over it begins anew, with the
image and the noise that the batch has at its place. The weights change a little under it, as little as the steps that
it lives. (The idea is that of persistent contrastive divergence.)

Everything here is small data and pure functions: ``renewed``, ``seated`` and, once the network has spoken, ``advanced``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from torch import Generator, Tensor

from .chain_levels import Ways, draw_ways
from .device import moved
from .noisy_batch import Memory, NoisyBatch
from .plan import RolloutPlan
from .schedules import Schedule
from .solvers import Conditioning, History, Level, Model, Predictor, Solver, rows

OLDEST = 10
"""A chain that lives more than so many training steps for each of its own begins anew: its weights are long gone."""

TOLD = "conditioning."


@dataclass(frozen=True)
class Chains:
    """Rollouts under way, one a row; chain i sits at place i of the batch. Whole numbers and levels are on the CPU."""

    latents: Tensor
    """Clean latents (n, C, H, W) of each chain's image."""
    noise: Tensor
    """The noise of its source state."""
    conditioning: Conditioning
    x: Tensor
    """Where it is now (n, C, H, W)."""
    fine: Tensor
    """Where it would be had it gone finely: the state of the trajectory's reference path; its source, without one."""
    memory: Tensor
    """What its solver remembers (n, 1 + remembers, C, H, W): the state before the last step, then predictions, the
    newest first. Empty (n, 0, ...) for a solver that remembers nothing."""
    grid: Tensor
    """The timesteps of its way (n, longest + 2), float64."""
    steps: Tensor
    """How many solver steps the way has (n,), int64."""
    age: Tensor
    """How many of them are done (n,), int64."""
    begun: Tensor
    """The update in which it began (n,), int64."""
    mask: Tensor | None = None
    weight: Tensor | None = None

    def __len__(self) -> int:
        return len(self.age)

    def tensors(self) -> dict[str, Tensor]:
        """All that a chain is, by name, each (n, ...); :meth:`of` is the way back."""
        named = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "conditioning"}
        told = {f"{TOLD}{name}": value for name, value in self.conditioning.items()}
        return {name: value for name, value in named.items() if value is not None} | told

    @classmethod
    def of(cls, tensors: dict[str, Tensor]) -> Chains:
        told = {name.removeprefix(TOLD): value for name, value in tensors.items() if name.startswith(TOLD)}
        return cls(conditioning=told, **{name: value for name, value in tensors.items() if not name.startswith(TOLD)})

    def items(self, index: slice | Tensor) -> Chains:
        """Some chains; a tensor of their numbers is on the CPU."""
        return Chains.of({name: picked(value, index) for name, value in self.tensors().items()})

    def timestep(self, later: int = 0) -> Tensor:
        """Each chain's level (n,) now, or some steps later; beyond the clean end if the way goes there."""
        return self.grid.gather(1, (self.age + later).clamp(0, self.grid.shape[1] - 1)[:, None])[:, 0]

    def oldest(self, update: int) -> int:
        """For how many updates the oldest of them has lived."""
        return int((update - self.begun).max()) if len(self) else 0


def picked(values: Tensor, index: slice | Tensor) -> Tensor:
    return values[index if isinstance(index, slice) else moved(index, values.device)]


def renewed(
    chains: Chains | None,
    batch: NoisyBatch,
    count: int,
    plan: RolloutPlan,
    solve: Solver,
    update: int,
    generator: Generator,
) -> Chains:
    """At least ``count`` chains, each with a step to go: those that are over or too old begin anew.

    Begins with the images that the batch has at the chains' places. Chains beyond ``count`` wait as they are.
    """
    if chains is None or not fits(chains, plan, solve):
        chains = begun(
            batch, torch.empty(0, dtype=torch.int64), draw_ways(plan, batch.schedule, 0, generator), solve, 0
        )
    limit = torch.full_like(chains.steps, plan.max_age) if plan.max_age else OLDEST * chains.steps
    over = (chains.age >= chains.steps) | (update - chains.begun > limit)
    again = over[:count].nonzero().flatten()
    first = torch.arange(len(chains), max(len(chains), count))
    ways = [
        draw_ways(plan, batch.schedule, len(places), generator, midway=midway)
        for places, midway in ((again, False), (first, True))
    ]
    grid, steps = (torch.cat(parts) for parts in zip(*ways, strict=True))
    new = torch.cat([again, first])
    if len(new) == 0:
        return chains
    order = torch.arange(max(len(chains), count)).index_copy(0, new, len(chains) + torch.arange(len(new)))
    both = begun(batch, new, Ways(grid, steps), solve, update).tensors()
    return Chains.of({name: picked(torch.cat([value, both[name]]), order) for name, value in chains.tensors().items()})


def fits(chains: Chains, plan: RolloutPlan, solve: Solver) -> bool:
    """Whether the chains were made for such rollouts; a resumed training may have other ones."""
    remembered = 1 + solve.remembers if solve.remembers else 0
    return (chains.grid.shape[1], chains.memory.shape[1]) == (plan.max_step_offset + 2, remembered)


def begun(batch: NoisyBatch, places: Tensor, ways: Ways, solve: Solver, update: int) -> Chains:
    """New chains with the images of these places (n,), at the tops of their ways."""
    there = moved(places, batch.x.device)
    latents, noise = batch.latents[there], batch.noise[there]
    x = batch.schedule.add_noise(latents, noise, ways.grid[:, 0])
    remembered = 1 + solve.remembers if solve.remembers else 0
    return Chains(
        latents=latents,
        noise=noise,
        conditioning=rows(batch.conditioning, there),
        x=x,
        fine=x,
        memory=x.new_zeros(len(x), remembered, *x.shape[1:]),
        grid=ways.grid,
        steps=ways.steps,
        age=torch.zeros_like(ways.steps),
        begun=torch.full_like(ways.steps, update),
        mask=None if batch.mask is None else batch.mask[there],
        weight=None if batch.weight is None else picked(batch.weight, places),
    )


def seated(batch: NoisyBatch, chains: Chains, solve: Solver) -> NoisyBatch:
    """The batch with the chains at its first places: their images, levels and states in place of its own."""
    count = len(chains)

    def joined(ours: Tensor | None, theirs: Tensor | None) -> Tensor | None:
        return None if ours is None or theirs is None else torch.cat([ours, theirs[count:]])

    timestep = chains.timestep()
    mine = {
        "latents": chains.latents,
        "noise": chains.noise,
        "timestep": timestep,
        "teacher_forced": batch.schedule.add_noise(chains.latents, chains.noise, timestep),
        "x": chains.x,
        "lengths": chains.age,
        "source": chains.grid[:, 0],
        "stride": timestep - chains.timestep(1),
        "mask": chains.mask,
        "weight": chains.weight,
    }
    changed = {name: joined(value, getattr(batch, name)) for name, value in mine.items()}
    told = {name: torch.cat([value, batch.conditioning[name][count:]]) for name, value in chains.conditioning.items()}
    memory = tuple(memories(chains, batch.schedule, solve))
    return replace(batch, **changed, conditioning=told, solve=solve, memory=memory, fine=chains.fine)


def memories(chains: Chains, schedule: Schedule, solve: Solver) -> list[Memory]:
    """What the solver remembers of the chains, those together of which it remembers equally many steps."""
    depths = chains.age.clamp(max=solve.remembers)
    found = []
    for depth in depths.unique().tolist():
        places = (depths == depth).nonzero().flatten()
        some = chains.items(places)
        history = History(
            tuple(Level.at(schedule, some.timestep(-1 - back)) for back in range(depth)),
            tuple(some.memory[:, 1 + back] for back in range(depth)),
            some.memory[:, 0] if depth else None,
        )
        found.append(Memory(places, history))
    return found


@torch.no_grad()
def advanced(
    chains: Chains, output: Tensor, model: Model, schedule: Schedule, solve: Solver, fine: Tensor | None = None
) -> Chains:
    """The chains one solver step later; ``output`` (n, ...) is what the network put out at their states.

    ``model`` is asked only by solvers with several calls a step (heun: one more forward of the chains, rk4: three).
    ``fine`` (n, ...) is where their fine paths are then, if there are any.
    """
    x, memory = chains.x, chains.memory
    for part in memories(chains, schedule, solve):
        some, there = chains.items(part.places), moved(part.places, x.device)
        now, then = (Level.at(schedule, some.timestep(later).clamp(min=schedule.clean_timestep)) for later in (0, 1))
        predict = Predictor(answering(output[there], model), some.conditioning, schedule)
        moved_on, history = solve.step(predict, some.x, now, then, part.history)
        x = x.index_copy(0, there, moved_on.to(x.dtype))
        if solve.remembers:
            memory = memory.index_copy(0, there, remembered(history, memory[there]))
    return replace(chains, x=x, memory=memory, age=chains.age + 1, fine=chains.fine if fine is None else fine)


def answering(output: Tensor, model: Model) -> Model:
    """A network that has answered its first question already."""
    answers = iter([output])

    def network(x: Tensor, timestep: Tensor, conditioning: Conditioning) -> Tensor:
        answer = next(answers, None)
        return model(x, timestep, conditioning) if answer is None else answer

    return network


def remembered(history: History, before: Tensor) -> Tensor:
    """The history as a chain keeps it (n, 1 + remembers, ...), of the shape of ``before``."""
    assert history.x is not None
    values = [history.x, *history.denoised]
    missing = before[:, len(values) :]
    return torch.cat([torch.stack(values, 1).to(before.dtype), missing], 1)


class Ride:
    """The chains in one training batch: they hear what the training works out, and go on by one step."""

    def __init__(
        self,
        chains: Chains,
        model: Model,
        schedule: Schedule,
        solve: Solver,
        arrive: Callable[[Chains], None],
    ) -> None:
        self.chains, self.model, self.schedule, self.solve, self.arrive = chains, model, schedule, solve, arrive
        self.fine: Tensor | None = None
        self.over = False

    def landed(self, fine: Tensor) -> None:
        """Where the chains' fine paths are after this step (n, ...)."""
        self.fine = fine

    def answered(self, output: Tensor) -> None:
        """What the network put out at the batch's states (B, ...); only the first answer counts."""
        if not self.over:
            self.over = True
            mine = output[: len(self.chains)].detach()
            self.arrive(advanced(self.chains, mine, self.model, self.schedule, self.solve, self.fine))
