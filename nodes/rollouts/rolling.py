"""The ways to roll out in a training step, and what they cost."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ...diffusion import seeds
from ...diffusion.chains import Keeper
from ...diffusion.noisy_batch import NoisyBatch
from ...diffusion.rollout import roll_out, with_clean_output
from ...diffusion.rollouts import beside as copied
from ...diffusion.rollouts.aimed import aimed
from ...diffusion.rollouts.beside import Beside
from ...diffusion.rollouts.guidance import UNGUIDED, Guidance
from ...diffusion.rollouts.plan import RolloutPlan
from ...diffusion.rollouts.stochastic import Noise, SharedNoise
from ...diffusion.schedules import Schedule
from ...diffusion.share import Share
from ...diffusion.solvers import Conditioning, Solver
from ...models.families import PRETRAINED
from ...models.model import Model
from ...training.stream import Run, Step, Stream
from ..models.model import ModelInfo
from .schedule import drawn_timesteps

MEMORY = "memory"
"""What a loss asks for whose target is that of the rollout's own sampler."""


def fresh(
    step: Step,
    batch: NoisyBatch,
    model: Model,
    plan: RolloutPlan,
    solve: Solver,
    guide: Guidance,
    noise: Noise | None = None,
) -> NoisyBatch:
    """Rollouts made for this step alone."""
    drawn = plan.draw(batch.drawn_timestep, batch.schedule, step.update, step.generator())
    draw, wanted, remember = drawn.of(batch.share), wants_clean_output(step, batch), MEMORY in step.run.wants
    walk, finish = noisy(step, batch, solve, noise, drawn.lengths, batch.share)
    with model.evaluating():
        rolled = roll_out(model, batch, draw, walk, want_clean_output=wanted, guide=guide, remember=remember)
    finish(batch.x)
    return rolled


def noisy(
    step: Step, batch: NoisyBatch, solve: Solver, noise: Noise | None, lengths: Tensor, share: Share
) -> tuple[Solver, Callable[[Tensor], None]]:
    """The solver for rollouts of which some are here, and what to call when they are over.

    ``lengths`` are those of all processes' rollouts. Only new noise makes it another solver.
    """
    if noise is None or batch.dealt is None:
        return solve, lambda x: None
    shared = SharedNoise(step.generator(batch.x.device), lengths, share)
    return noise.solver(shared), shared.finish


def persistent(
    step: Step, batch: NoisyBatch, model: Model, plan: RolloutPlan, solve: Solver, guide: Guidance
) -> NoisyBatch:
    """Rollouts that go on from step to step, at the first places of the batch."""

    def calm(x: Tensor, timestep: Tensor, conditioning: Conditioning) -> Tensor:
        with model.evaluating():
            return model(x, timestep, conditioning)

    keeper: Keeper = step.keep(Keeper)
    remember = MEMORY in step.run.wants
    seated = keeper.seat(
        batch, calm, plan, solve, step.update, step.generator(), guide, remember=remember, pull=step.index
    )
    step.report("rollout_age", float(keeper.oldest(step.update)))
    return with_clean_output(calm, seated) if wants_clean_output(step, batch) else seated


def still(step: Step, batch: NoisyBatch, plan: RolloutPlan) -> NoisyBatch:
    """No rollout: the first items stay where teacher forcing has them, at the beginning of a coarse step."""
    return aimed(batch, plan, plan.seats(batch.share.total, step.update, step.generator()), step.generator())


def beside(
    step: Step,
    batch: NoisyBatch,
    model: Model,
    plan: RolloutPlan,
    solve: Solver,
    guide: Guidance,
    copies: Beside,
    noise: Noise | None = None,
) -> NoisyBatch:
    """Copies of the items, rolled out from where these are, behind them in the batch."""
    generator = step.generator()
    draw = plan.draw_down(batch.drawn_timestep, copied.lowest(batch.schedule, copies), step.update, generator)
    chosen, remember = draw.lengths.nonzero().flatten(), MEMORY in step.run.wants
    walk, finish = noisy(step, batch, solve, noise, draw.lengths[chosen], batch.share.among(chosen))
    with model.evaluating():
        guided = guide.of(model)
        both = copied.beside(guided, batch, draw, walk, copies, generator, remember=remember, rolled_out=finish)
        return with_clean_output(model, both) if wants_clean_output(step, batch) else both


def wants_clean_output(step: Step, batch: NoisyBatch) -> bool:
    return "clean_output" in step.run.wants and batch.schedule.is_flow_matching


def check_sampling_guidance(info: ModelInfo) -> None:
    """Raises ValueError for a model that is not told its guidance."""
    if info.pretrained is None or not PRETRAINED[info.pretrained.info.family].told_guidance:
        raise ValueError(
            "sampling_guidance is for models that were distilled to be told it, such as FLUX.1-dev: set it to 0, and "
            "guidance in its place"
        )


def check_noise(noise: Noise, plan: RolloutPlan, sampler: str, batch: Stream) -> None:
    """Raises ValueError where steps cannot put in new noise."""
    fresh_only = sampler == "euler" and plan.rollout == "fresh"
    if not fresh_only or not all(schedule.is_flow_matching for schedule in batch.constants(Schedule)):
        raise ValueError(
            f"stochastic: {noise.kind} is an Euler step of flow matching in fresh rollouts: set sampler to euler and "
            "rollout to fresh, or stochastic to none"
        )


def estimate(
    plan: RolloutPlan, solve: Solver, batch: Stream, guide: Guidance = UNGUIDED, copies: Beside | None = None
) -> str:
    """What the rollouts will cost, said before it is paid."""
    data = batch.data()
    items = data.inputs["batch_size"] if data else 1
    if not plan.active and plan.max_step_offset and plan.ramps:
        return "no rollouts: prob_start and prob_end are 0"
    if not plan.active:
        return "no rollouts: max_step_offset or probability is 0"
    if plan.rollout == "none":
        return (
            f"no rollouts: {plan.peak_probability * items:.3g} of {items} items get the trajectory's target as they are"
        )
    schedule = next(batch.constants(Schedule), None)
    if plan.rollout == "persistent" and schedule and plan.ends_at_once(schedule):
        return f"no rollouts: from noise to image it is one step of {plan.step_size:g}; set a smaller step_size"
    if plan.rollout == "persistent":
        known = 0 if guide.told else 1  # what the loss asks anyway is the first answer, or half of it
        each = 1 if guide.scale == 1 else 2
        seats, more = plan.peak_probability * items, solve.calls * each - known
        cost_in_words = f"{more} more forward passes of these" if more else "no forward pass of their own"
        return f"persistent rollouts at {seats:.3g} of {items} places of a batch take {cost_in_words} per training step"
    if copies:
        most, each = plan.longest(schedule) * solve.calls, max(1, copies.levels)
        added = plan.peak_probability * items * each
        return (
            f"rollouts take up to {most} more forward passes per training step, and put {added:.3g} copies beside the "
            f"{items} items of a batch, which is then as large as {items + added:.3g}"
        )
    cost = plan.forwards(items, solve.calls, schedule=schedule)
    twice = ", each of them twice for guidance" if guide.scale != 1 else ""
    return (
        f"rollouts take up to {cost.worst} more forward passes per training step, at full probability "
        f"{cost.expected:.1f} on average with {cost.samples:.0f} items in all (the batch has {items}){twice}"
    )


def work_of(
    node_id: str, batch: Stream, plan: RolloutPlan, copies: Beside | None, run: Run, pull: int, total: int
) -> Tensor | None:
    """Forwards that each item of a global batch will take in its rollout (total,), by the plan as it will be drawn.

    Drawn before anything is read, so that processes can share the items out by it. None where they must stay where they
    are, for persistent chains do. Where the schedule depends on an image's size the lengths are nearly those of then.
    """
    if plan.rollout == "persistent":
        return None
    noisy = next((part for part in batch.walk() if {"schedule", "perturbation"} <= part.inputs.keys()), None)
    if noisy is None or not plan.active:
        return torch.zeros(total)
    schedule, levels = noisy.inputs["schedule"], seeds.generator(run.seed, noisy.node_id, pull)
    timestep = drawn_timesteps(total, schedule, noisy.inputs["perturbation"], levels)
    plan, generator = plan.over(run.steps), seeds.generator(run.seed, node_id, pull)
    update = pull // run.accumulation
    if copies:
        return plan.draw_down(timestep, copied.lowest(schedule, copies), update, generator).lengths
    return plan.draw(timestep, schedule, update, generator).lengths
