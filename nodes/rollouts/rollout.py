"""Rollout: the batch, denoised a few steps by the model that is being trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from ...diffusion.noisy_batch import NoisyBatch, Perturbation
from ...diffusion.rollouts.beside import Beside
from ...diffusion.rollouts.guidance import Guidance
from ...diffusion.rollouts.plan import RolloutPlan
from ...diffusion.rollouts.stochastic import Noise
from ...diffusion.solvers import SOLVERS, Solver, solver
from ...models.model import Model
from ...runs.pictures.inspection import inspect
from ...runs.pictures.preview import colours_of, picture_of_rollout
from ...training.stream import Step, Stream
from ..base import BATCH, CATEGORY, MODEL, StepNode
from ..inputs import UNIQUE_ID, choice, defaults, integer, number, settings_in, switch, wire
from ..models.model import check_guidance
from .negative import negative_rows
from .rolling import beside, check_noise, check_sampling_guidance, estimate, fresh, persistent, still, work_of

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
                    ("fresh", "persistent", "none"),
                    "fresh",
                    "fresh: each rollout is made for this step alone. persistent: rollouts go on from step to step; "
                    "what the loss asks the network anyway moves them on by one solver step, so they cost nothing, "
                    "however long they are. probability is then their share of the batch. none: for target trajectory; "
                    "that share stays teacher-forced and learns a step of step_size, the cheapest way to fewer steps.",
                ),
                "from_noise": switch(
                    False,
                    "persistent: every rollout begins at pure noise and goes down the sampler's own levels, with "
                    "step_size 100 those of 10 steps. Set max_step_offset to their number less 1 for the whole path. "
                    "none: only the levels of a sampler of max_step_offset + 1 steps are taken.",
                    advanced=True,
                ),
                "max_age": integer(
                    0,
                    0,
                    LARGEST_STEP,
                    "persistent: a rollout that is still under way after so many training steps begins anew, for "
                    "images of a rare size. 0 = ten for each step that it makes.",
                    advanced=True,
                ),
                "guidance": number(
                    1.0,
                    1.0,
                    30.0,
                    0.5,
                    "Roll out with classifier-free guidance, as people sample: each forward pass is for twice the "
                    "items. 1 is off. Not with the target trajectory, whose reference is guided instead.",
                ),
                "sampling_guidance": number(
                    0.0,
                    0.0,
                    30.0,
                    0.5,
                    "For guidance-distilled models such as FLUX.1-dev: the guidance that the network is told in "
                    "rollouts; training keeps its own. 0 = the same as in training.",
                    advanced=True,
                ),
                "keep_base": switch(
                    False,
                    "fresh: nothing is replaced. Each item keeps its own loss, and a copy of it is rolled out from "
                    "there and trained beside it (SOAR). The batch grows by the copies: choose a smaller one.",
                ),
                "copies_weight": number(
                    1.0,
                    0.0,
                    10.0,
                    0.05,
                    "keep_base: how much a copy's loss counts against an item's own (lambda). 1 as published, 0.1 to "
                    "0.3 for a LoRA.",
                    advanced=True,
                ),
                "renoise": choice(
                    ("none", "same_noise"),
                    "none",
                    "keep_base: same_noise: copies are noised again after their rollout, with the noise that they had, "
                    "to levels from there to renoise_upper. As SOAR does.",
                    advanced=True,
                ),
                "renoise_levels": integer(
                    6, 1, 64, "renoise: levels for each rollout, each of which is a copy in the batch.", advanced=True
                ),
                "renoise_upper": number(
                    1.0, 0.0, 1.0, 0.05, "renoise: the noisiest level, as a share of the whole way.", advanced=True
                ),
                "stochastic": choice(
                    ("none", "cps", "flow_sde"),
                    "none",
                    "Flow matching, sampler euler, fresh: each step puts some new noise in. cps keeps the level's "
                    "amount of noise; flow_sde is Flow-GRPO's step.",
                    advanced=True,
                ),
                "noise_scale": number(0.5, 0.0, 1.0, 0.05, "stochastic: how much of it.", advanced=True),
                "start": number(
                    0.0,
                    0.0,
                    1.0,
                    0.05,
                    "No rollouts before this share of the training: 0.75 = in its last quarter, however long it is. "
                    "The later of this and start_step counts.",
                    advanced=True,
                ),
                "ramp": number(
                    0.0,
                    0.0,
                    1.0,
                    0.05,
                    "Warm-up over this share of the training, from prob_start to prob_end; instead of ramp_steps.",
                    advanced=True,
                ),
            },
            "hidden": UNIQUE_ID,
        }

    def build(self, unique_id: str, batch: Stream, model: Stream, **widgets: Any) -> dict[str, Any]:
        if any(batch.constants(RolloutPlan)):
            raise ValueError("batch: these latents were rolled out already; wire Noisy Batch into this Rollout")
        if any(perturbation.mixflow for perturbation in batch.constants(Perturbation)):
            raise ValueError("mixflow and rollouts both change what the network sees at a level: set mixflow to 0")
        widgets = {**defaults(Rollout), **widgets}
        sampler = widgets["sampler"]
        plan, solve = settings_in(widgets, RolloutPlan), solver(sampler, widgets["order"])
        copies, noise = copies_in(widgets, plan), noise_in(widgets)
        guide = Guidance(widgets["guidance"], widgets["sampling_guidance"])
        if noise:
            check_noise(noise, plan, sampler, batch)
        if guide.scale != 1:
            check_guidance(model.about)
        if guide.told:
            check_sampling_guidance(model.about)
        inputs = {"batch": batch, "model": model, "plan": plan, "solve": solve, "sampler": sampler}
        inputs |= {"guide": guide, "copies": copies, "noise": noise}
        text = estimate(plan, solve, batch, guide, copies)
        work = partial(work_of, str(unique_id), batch, plan, copies)
        return {"ui": {"text": [text]}, "result": (self.stream(unique_id, inputs, work=work),)}

    def step(
        self,
        step: Step,
        batch: NoisyBatch,
        model: Model,
        plan: RolloutPlan,
        solve: Solver,
        sampler: str,
        guide: Guidance,
        copies: Beside | None,
        noise: Noise | None,
    ) -> NoisyBatch:
        plan = plan.over(step.run.steps)
        if guide.scale != 1:
            guide = replace(guide, negative=negative_rows(step, batch.negative))
        if noise:
            solve = noise.solver(step.generator(batch.x.device))
        if plan.rollout == "none":
            rolled = still(step, batch, plan)
        elif copies:
            rolled = beside(step, batch, model, plan, solve, guide, copies, noise)
        elif plan.rollout == "persistent":
            rolled = persistent(step, batch, model, plan, solve, guide)
        else:
            rolled = fresh(step, batch, model, plan, solve, guide, noise)
        if plan.rollout != "none":
            with model.evaluating():
                inspect(step, batch, guide.of(model), plan, solve, sampler)
        step.report("rollout_probability", plan.probability_at(step.update))
        step.report("rollout_share", float(rolled.rolled.double().mean()), of=len(rolled.lengths))
        step.report("rollout_length", float(rolled.lengths.double().mean()), of=len(rolled.lengths))
        step.report("drift", rolled.drift)
        if plan.active:
            step.show("rollout", lambda: picture_of_rollout(rolled, colours_of(step.run)))
        return rolled


def copies_in(widgets: Mapping[str, Any], plan: RolloutPlan) -> Beside | None:
    """What becomes of copies; None where there are none. Raises ValueError for settings that are at odds."""
    renoise, keep_base = widgets["renoise"] != "none", widgets["keep_base"]
    if renoise and not keep_base:
        raise ValueError("renoise is for copies: turn on keep_base, or set renoise to none")
    if keep_base and plan.rollout != "fresh":
        raise ValueError("keep_base copies items anew in each step: set rollout to fresh")
    levels = widgets["renoise_levels"] if renoise else 0
    return Beside(widgets["copies_weight"], levels, widgets["renoise_upper"]) if keep_base else None


def noise_in(widgets: Mapping[str, Any]) -> Noise | None:
    """The new noise of each step; None where steps are without."""
    kind = widgets["stochastic"]
    return None if kind == "none" else Noise(kind, widgets["noise_scale"])
