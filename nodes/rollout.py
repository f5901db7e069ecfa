"""Rollout: the batch, denoised a few steps by the model that is being trained."""

from __future__ import annotations

from typing import Any

from ..diffusion.rollout import NoisyBatch, RolloutPlan, roll_out
from ..diffusion.solvers import SOLVERS, Solver, solver
from ..training.models import Model
from ..training.preview import picture_of_rollout
from ..training.stream import Step, Stream
from .base import BATCH, MODEL, StepNode


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
        def integer(default: int, high: int, tooltip: str) -> tuple[str, dict[str, Any]]:
            return ("INT", {"default": default, "min": 0, "max": high, "tooltip": tooltip})

        def chance(default: float, tooltip: str) -> tuple[str, dict[str, Any]]:
            return ("FLOAT", {"default": default, "min": 0.0, "max": 1.0, "step": 0.01, "tooltip": tooltip})

        return {
            "required": {
                "batch": (BATCH, {"tooltip": "Noisy latents to roll out."}),
                "model": (MODEL, {"tooltip": "The model that is being trained."}),
                "max_step_offset": integer(
                    0, 1000, "Longest rollout in steps; each item draws its own length from 0 to this. 0 turns rollouts off. "
                    "Start with 5 to 10.",
                ),
                "probability": chance(
                    0.0, "Chance that an item is rolled out at all. 1 is every item, the heaviest. Not used while "
                    "ramp_steps is set.",
                ),
                "sampler": (
                    list(SOLVERS),
                    {"default": "unipc", "tooltip": "The solver that denoises. euler is the plainest; rk4 costs four forward "
                     "passes a step."},
                ),
                "order": (
                    "INT",
                    {"default": 2, "min": 1, "max": 3, "tooltip": "Order of unipc and dpm: how many past predictions "
                     "they use. The others ignore it."},
                ),
                "step_size": (
                    "FLOAT",
                    {"default": 1.0, "min": 0.01, "max": 1000.0, "step": 1.0, "tooltip": "Timesteps (of 1000) in one "
                     "rollout step. 1 is tiny; 20 is the stride of a 50-step sampler, 100 that of a 10-step one."},
                ),
                "strategy": (
                    ["uniform", "biased_early", "biased_late"],
                    {"default": "uniform", "tooltip": "How lengths are drawn: evenly, mostly short, or mostly long."},
                ),
                "start_step": integer(0, 10_000_000, "No rollouts before this training step: teacher forcing first."),
                "ramp_steps": integer(
                    0, 10_000_000, "Warm-up: over this many training steps the probability goes from prob_start to "
                    "prob_end. 0 = no ramp, use probability.",
                ),
                "prob_start": chance(0.0, "Probability at the start of the ramp."),
                "prob_end": chance(0.5, "Probability at the end of the ramp, and from then on."),
                "ramp_shape": (
                    ["linear", "cosine"],
                    {"default": "linear", "tooltip": "linear: steady. cosine: gentle at both ends of the ramp."},
                ),
            },
            "hidden": {"unique_id": "UNIQUE_ID"},
        }  # fmt: skip

    def build(  # type: ignore[override]
        self, unique_id: str, batch: Stream, model: Stream, sampler: str, order: int, **plan: Any
    ) -> tuple[Stream]:
        inputs = {"batch": batch, "model": model, "plan": RolloutPlan(**plan), "solve": solver(sampler, order)}
        return (self.stream(unique_id, inputs),)

    def step(  # type: ignore[override]
        self, step: Step, batch: NoisyBatch, model: Model, plan: RolloutPlan, solve: Solver
    ) -> NoisyBatch:
        draw = plan.draw(batch.timestep, batch.schedule, step.update, step.generator())
        want_clean_output = "clean_output" in step.run.wants and batch.schedule.is_flow_matching
        with model.evaluating():
            rolled = roll_out(model, batch, draw, solve, want_clean_output=want_clean_output)
        step.report("rollout_probability", plan.probability_at(step.update))
        step.report("rollout_share", float(rolled.rolled.double().mean()))
        step.report("rollout_length", float(rolled.lengths.double().mean()))
        step.report("drift", (rolled.x - rolled.teacher_forced).square())
        step.show("rollout", lambda: picture_of_rollout(rolled))
        return rolled
