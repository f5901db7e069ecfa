"""How chains live: they begin, sit in a batch, and go on by one step when the network has answered. Pure functions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Generator, Tensor

from ..device import moved, picked
from ..noisy_batch import Memory, NoisyBatch
from ..rollouts.guidance import UNGUIDED, Guidance
from ..rollouts.plan import RolloutPlan
from ..schedules import Schedule
from ..solvers import Conditioning, History, Level, Model, Predictor, Solver, ask, rows
from .levels import Ways, draw_ways
from .state import Chains, Lives

OLDEST = 10
"""A chain begins anew once it is older than so many training steps for each step of its way: the weights that it began
with are long gone. Only training steps that take its place count: chains at places that are seldom taken would else
never come to their end.
"""


def renewed(
    chains: Chains | None,
    batch: NoisyBatch,
    count: int,
    plan: RolloutPlan,
    solve: Solver,
    update: int,
    generator: Generator,
    lives: Lives | None = None,
) -> tuple[Chains, Lives]:
    """At least ``count`` chains, each with a step to go: those that are over or too old begin anew.

    They begin with the images that the batch has at their places; chains beyond ``count`` wait as they are. In a batch
    over several processes ``chains`` are those here, while ``count`` and ``lives`` (by default those of ``chains``) are
    of all processes, each of which draws the same new ways for all.
    """
    if chains is None or not fits(chains, plan, solve):
        nowhere = draw_ways(plan, batch.schedule, 0, generator)
        chains, lives = begun(batch, torch.empty(0, dtype=torch.int64), nowhere, solve, 0), None
    lives = lives or chains.lives
    before, total = len(lives.age), max(len(lives.age), count)
    again = over(lives, plan, batch.share.total, update)[:count].nonzero().flatten()
    first = torch.arange(before, total)
    ways = [
        draw_ways(plan, batch.schedule, len(again), generator),
        draw_ways(plan, batch.schedule, len(first), generator, midway=True),
    ]
    new, (grid, steps) = torch.cat([again, first]), (torch.cat(parts) for parts in zip(*ways, strict=True))
    if len(new) == 0:
        return chains, lives
    began = Lives(grid, steps, torch.zeros_like(steps), torch.full_like(steps, update))
    together = Lives(*(torch.cat(parts) for parts in zip(lives, began, strict=True)))
    here = batch.share.among(torch.arange(total)).places
    mine = torch.isin(new, here)
    places = torch.searchsorted(here, new[mine])  # among the chains here, which sit at the batch's first places
    both = chains.joined(begun(batch, places, Ways(grid[mine], steps[mine]), solve, update))
    return both.items(taken(places, len(here), len(chains))), together.items(taken(new, total, before))


def over(lives: Lives, plan: RolloutPlan, batch: int, update: int) -> Tensor:
    """Which chains (n,) have come to the end of their ways, or are too old; ``batch`` is the global batch's size."""
    limit = plan.max_age or OLDEST * lives.steps / plan.often(len(lives.age), batch, update)
    return (lives.age >= lives.steps) | (update - lives.begun > limit)


def taken(places: Tensor, count: int, before: int) -> Tensor:
    """Which row each of ``count`` places takes (count,), of ``before`` old rows and one new row behind them for each of
    ``places``: its own old one, or its new one.
    """
    return torch.arange(count).index_copy(0, places, before + torch.arange(len(places)))


def fits(chains: Chains, plan: RolloutPlan, solve: Solver) -> bool:
    """Whether the chains were made for such rollouts; a resumed training may have other ones."""
    return (chains.grid.shape[1], chains.memory.shape[1]) == (plan.max_step_offset + 2, rows_of_memory(solve))


def rows_of_memory(solve: Solver) -> int:
    """How many latents a chain keeps for its solver: the state before the last step, and predictions; 0 = none."""
    return 1 + solve.remembers if solve.remembers else 0


def begun(batch: NoisyBatch, places: Tensor, ways: Ways, solve: Solver, update: int) -> Chains:
    """New chains with the images of these places (n,), at the tops of their ways."""
    there = moved(places, batch.x.device)
    latents, noise = batch.latents[there], batch.noise[there]
    x = batch.schedule.add_noise(latents, noise, ways.grid[:, 0])
    return Chains(
        latents=latents,
        noise=noise,
        conditioning=rows(batch.conditioning, there),
        x=x,
        fine=x,
        memory=x.new_zeros(len(x), rows_of_memory(solve), *x.shape[1:]),
        grid=ways.grid,
        steps=ways.steps,
        age=torch.zeros_like(ways.steps),
        begun=torch.full_like(ways.steps, update),
        mask=None if batch.mask is None else batch.mask[there],
        weight=None if batch.weight is None else picked(batch.weight, places),
    )


def seated(batch: NoisyBatch, ride: Ride, *, remember: bool = False) -> NoisyBatch:
    """The batch with the ride's chains at its first places: their images, levels and states in place of its own.

    ``remember``: with what their solver remembers too.
    """
    chains, solve = ride.chains, ride.solve
    timestep = chains.timestep()
    riding = replace(
        batch,
        latents=chains.latents,
        noise=chains.noise,
        timestep=timestep,
        teacher_forced=batch.schedule.add_noise(chains.latents, chains.noise, timestep),
        x=chains.x,
        conditioning=chains.conditioning,
        lengths=chains.age,
        source=chains.grid[:, 0],
        stride=timestep - chains.timestep(1),
        mask=chains.mask,
        weight=chains.weight,
    )
    return replace(
        riding.followed_by(batch.items(slice(len(chains), None))),
        solve=solve,
        memory=tuple(memories(chains, batch.schedule, solve)) if remember else (),
        fine=chains.fine,
        listener=ride,
    )


def memories(chains: Chains, schedule: Schedule, solve: Solver) -> list[Memory]:
    """What the solver remembers of the chains: one :class:`Memory` for all that have equally many steps behind them."""
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
        guide: Guidance = UNGUIDED,
    ) -> None:
        self.chains, self.model, self.schedule, self.solve, self.arrive = chains, model, schedule, solve, arrive
        self.guide = guide
        self.fine: Tensor | None = None
        self.over = False

    def landed(self, fine: Tensor) -> None:
        """Where the chains' fine paths are after this step (n, ...)."""
        self.fine = fine

    def answered(self, output: Tensor) -> None:
        """What the network put out at the batch's states (B, ...); only the first answer counts."""
        if not self.over:
            self.arrive(self.advanced(output[: len(self.chains)].detach()))
            self.over = True  # not before: where the memory was too small for it, the step is done once more

    @torch.no_grad()
    def advanced(self, output: Tensor) -> Chains:
        chains, guide = self.chains, self.guide
        if guide.active:
            asked = guide.knowing(output, self.model)
            output = ask(asked, chains.x, chains.timestep(), chains.conditioning)
        return advanced(chains, output, guide.of(self.model), self.schedule, self.solve, self.fine)
