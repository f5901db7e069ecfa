"""Rollout: the batch, denoised a few steps by the model that is being trained."""

from __future__ import annotations

from typing import Any

from ..diffusion.rollout import NoisyBatch, RolloutPlan, roll_out
from ..diffusion.solvers import SOLVERS, Solver, solver
from ..models.model import Model
from ..runs.pictures.inspection import inspect
from ..runs.pictures.preview import colours_of, picture_of_rollout
from ..training.stream import Step, Stream
from .base import BATCH, MODEL, StepNode
from .inputs import UNIQUE_ID, choice, integer, number, wire

LARGEST_STEP = 10_000_000


class Rollout(StepNode):
    NODE_ID = "Rollout"
    DISPLAY_NAME = "Rollout"
    DESCRIPTION = (
        "Scheduled sampling: starts some items at a noisier level, denoises them down to their own timestep with the "
        "current weights, and lets the model train on its own, slightly wrong latents. Cures the drift between "
        "training and sampling (exposure bias). Costs up to max_step_offset extra forward passes a step."
    )
    SEARCH_ALIASES = ("scheduled sampling", "exposure bias", "self forcing")
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
                    "The solver that denoises. euler is the plainest; rk4 costs four forward passes a step.",
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
            },
            "hidden": UNIQUE_ID,
        }

    def build(
        self, unique_id: str, batch: Stream, model: Stream, sampler: str, order: int, **options: Any
    ) -> dict[str, Any]:
        if any(batch.constants(RolloutPlan)):
            raise ValueError("batch: these latents were rolled out already; wire Noisy Batch into this Rollout")
        plan, solve = RolloutPlan(**options), solver(sampler, order)
        inputs = {"batch": batch, "model": model, "plan": plan, "solve": solve, "sampler": sampler}
        return {"ui": {"text": [estimate(plan, solve, batch)]}, "result": (self.stream(unique_id, inputs),)}

    def step(
        self, step: Step, batch: NoisyBatch, model: Model, plan: RolloutPlan, solve: Solver, sampler: str
    ) -> NoisyBatch:
        draw = plan.draw(batch.timestep, batch.schedule, step.update, step.generator())
        want_clean_output = "clean_output" in step.run.wants and batch.schedule.is_flow_matching
        with model.evaluating():
            rolled = roll_out(model, batch, draw, solve, want_clean_output=want_clean_output)
            inspect(step, batch, model, plan, solve, sampler)
        step.report("rollout_probability", plan.probability_at(step.update))
        step.report("rollout_share", float(rolled.rolled.double().mean()))
        step.report("rollout_length", float(rolled.lengths.double().mean()))
        step.report("drift", rolled.drift)
        if plan.active:
            step.show("rollout", lambda: picture_of_rollout(rolled, colours_of(step.run)))
        return rolled


def estimate(plan: RolloutPlan, solve: Solver, batch: Stream) -> str:
    """What the rollouts will cost, said before it is paid."""
    items = next((stream.inputs["batch_size"] for stream in batch.walk() if "batch_size" in stream.inputs), 1)
    cost = plan.forwards(items, solve.calls)
    if not plan.active:
        return "no rollouts: max_step_offset or probability is 0"
    return (
        f"rollouts take up to {cost.worst} more forward passes per training step, at full probability "
        f"{cost.expected:.1f} on average with {cost.samples:.0f} items in all (the batch has {items})"
    )
