"""Rollout: the batch, denoised a few steps by the model that is being trained."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...diffusion.chains import Keeper
from ...diffusion.rollout import NoisyBatch, RolloutPlan, roll_out, with_clean_output
from ...diffusion.solvers import SOLVERS, Conditioning, Solver, solver
from ...models.model import Model
from ...runs.pictures.inspection import inspect
from ...runs.pictures.preview import colours_of, picture_of_rollout
from ...training.stream import Step, Stream
from ..base import BATCH, CATEGORY, MODEL, StepNode
from ..inputs import UNIQUE_ID, choice, integer, number, switch, wire

LARGEST_STEP = 10_000_000


class Rollout(StepNode):
    NODE_ID = "Rollout"
    DISPLAY_NAME = "Rollout"
    CATEGORY = f"{CATEGORY}/rollout"
    DESCRIPTION = (
        "Scheduled sampling: starts some items at a noisier level, denoises them down to their own timestep with the "
        "current weights, and lets the model train on its own, slightly wrong latents. Cures the drift between "
        "training and sampling (exposure bias). Costs up to max_step_offset extra forward passes a step."
    )
    SEARCH_ALIASES = ("scheduled sampling", "exposure bias", "self forcing", "unipc", "solver", "sampler", "drift")
    RETURN_TYPES = (BATCH,)
    RETURN_NAMES = ("batch",)
    OUTPUT_TOOLTIPS = ("The batch, with rolled-out latents in place of some teacher-forced ones.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "batch": wire(BATCH, "Noisy latents to roll out."),
                "model": wire(MODEL, "The model that is being trained."),
                "max_step_offset": integer(
                    0,
                    0,
                    1000,
                    "Longest rollout in steps; each item draws its own length from 0 to this. 0 turns rollouts off. "
                    "Start with 5 to 10.",
                ),
                "probability": number(
                    0.0,
                    0.0,
                    1.0,
                    0.05,
                    "Chance that an item is rolled out at all. 1 is every item, the heaviest. Not used while "
                    "ramp_steps is set.",
                ),
                "sampler": choice(
                    SOLVERS,
                    "unipc",
                    "The solver that denoises. euler is the plainest; heun costs two forward passes a step, rk4 four.",
                ),
                "order": integer(
                    2, 1, 3, "Order of unipc and dpm: how many past predictions they use. The others ignore it."
                ),
                "step_size": number(
                    1.0,
                    0.01,
                    1000.0,
                    1.0,
                    "Timesteps (of 1000) in one rollout step. 1 is tiny; 20 is the stride of a 50-step sampler, "
                    "100 that of a 10-step one.",
                ),
                "strategy": choice(
                    ("uniform", "biased_early", "biased_late"),
                    "uniform",
                    "How lengths are drawn: evenly, mostly short, or mostly long.",
                ),
                "start_step": integer(
                    0, 0, LARGEST_STEP, "No rollouts before this training step: teacher forcing first."
                ),
                "ramp_steps": integer(
                    0,
                    0,
                    LARGEST_STEP,
                    "Warm-up: over this many training steps the probability goes from prob_start to prob_end. "
                    "0 = no ramp, use probability.",
                ),
                "prob_start": number(0.0, 0.0, 1.0, 0.05, "Probability at the start of the ramp."),
                "prob_end": number(0.5, 0.0, 1.0, 0.05, "Probability at the end of the ramp, and from then on."),
                "ramp_shape": choice(
                    ("linear", "cosine"), "linear", "linear: steady. cosine: gentle at both ends of the ramp."
                ),
            },
            "optional": {
                "step_size_max": number(
                    0.0,
                    0.0,
                    1000.0,
                    1.0,
                    "If set, each item draws its own step size between step_size and this, small ones as often as "
                    "large ones.",
                    advanced=True,
                ),
                "rollout": choice(
                    ("fresh", "persistent"),
                    "fresh",
                    "fresh: each rollout is made for this step alone. persistent: rollouts go on from step to step; "
                    "what the loss asks the network anyway moves them on by one solver step, so they cost nothing, "
                    "however long they are. probability is then their share of the batch.",
                ),
                "from_noise": switch(
                    False,
                    "persistent: every rollout begins at pure noise and goes down the sampler's own levels, with "
                    "step_size 100 those of 10 steps. Set max_step_offset to their number less 1 for the whole path.",
                ),
                "max_age": integer(
                    0,
                    0,
                    LARGEST_STEP,
                    "persistent: a rollout that is still under way after so many training steps begins anew, for "
                    "images of a rare size. 0 = ten for each step that it makes.",
                    advanced=True,
                ),
            },
            "hidden": UNIQUE_ID,
        }

    def build(
        self, unique_id: str, batch: Stream, model: Stream, sampler: str, order: int, **options: Any
    ) -> dict[str, Any]:
        if any(batch.constants(RolloutPlan)):
            raise ValueError("batch: these latents were rolled out already; wire Noisy Batch into this Rollout")
        plan = RolloutPlan(persistent=options.pop("rollout", "fresh") == "persistent", **options)
        solve = solver(sampler, order)
        inputs = {"batch": batch, "model": model, "plan": plan, "solve": solve, "sampler": sampler}
        return {"ui": {"text": [estimate(plan, solve, batch)]}, "result": (self.stream(unique_id, inputs),)}

    def step(
        self, step: Step, batch: NoisyBatch, model: Model, plan: RolloutPlan, solve: Solver, sampler: str
    ) -> NoisyBatch:
        rolled = (persistent if plan.persistent else fresh)(step, batch, model, plan, solve)
        with model.evaluating():
            inspect(step, batch, model, plan, solve, sampler)
        step.report("rollout_probability", plan.probability_at(step.update))
        step.report("rollout_share", float(rolled.rolled.double().mean()))
        step.report("rollout_length", float(rolled.lengths.double().mean()))
        step.report("drift", rolled.drift)
        if plan.active:
            step.show("rollout", lambda: picture_of_rollout(rolled, colours_of(step.run)))
        return rolled


def fresh(step: Step, batch: NoisyBatch, model: Model, plan: RolloutPlan, solve: Solver) -> NoisyBatch:
    """Rollouts made for this step alone."""
    draw = plan.draw(batch.timestep, batch.schedule, step.update, step.generator())
    with model.evaluating():
        return roll_out(model, batch, draw, solve, want_clean_output=wants_clean_output(step, batch))


def persistent(step: Step, batch: NoisyBatch, model: Model, plan: RolloutPlan, solve: Solver) -> NoisyBatch:
    """Rollouts that go on from step to step, at the first places of the batch."""

    def calm(x: Tensor, timestep: Tensor, conditioning: Conditioning) -> Tensor:
        with model.evaluating():
            return model(x, timestep, conditioning)

    keeper: Keeper = step.keep(Keeper)
    seated = keeper.seat(batch, calm, plan, solve, step.update, step.generator())
    step.report("rollout_age", float(keeper.oldest(step.update)))
    if wants_clean_output(step, batch):
        return with_clean_output(calm, seated)
    return seated


def wants_clean_output(step: Step, batch: NoisyBatch) -> bool:
    return "clean_output" in step.run.wants and batch.schedule.is_flow_matching


def estimate(plan: RolloutPlan, solve: Solver, batch: Stream) -> str:
    """What the rollouts will cost, said before it is paid."""
    items = next((stream.inputs["batch_size"] for stream in batch.walk() if "batch_size" in stream.inputs), 1)
    if not plan.active:
        return "no rollouts: max_step_offset or probability is 0"
    if plan.persistent:
        seats, more = plan.peak_probability * items, solve.calls - 1
        cost_in_words = f"{more} more forward passes of these" if more else "no forward pass of their own"
        return f"persistent rollouts at {seats:.3g} of {items} places of a batch take {cost_in_words} per training step"
    cost = plan.forwards(items, solve.calls)
    return (
        f"rollouts take up to {cost.worst} more forward passes per training step, at full probability "
        f"{cost.expected:.1f} on average with {cost.samples:.0f} items in all (the batch has {items})"
    )
