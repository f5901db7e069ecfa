"""Reflow: train on straight ways between noise and what the model makes of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ...diffusion.chains import kind_of
from ...diffusion.noisy_batch import NoisyBatch
from ...diffusion.rollouts.guidance import Guidance
from ...diffusion.rollouts.pairs import PairsByKind, packed
from ...diffusion.rollouts.plan import RolloutPlan, places_for
from ...diffusion.schedules import Schedule
from ...diffusion.share import Share
from ...diffusion.solvers import SOLVERS, Solver, from_noise, solver
from ...hosts.processes import Processes
from ...models.model import Model
from ...runs.pictures.preview import colours_of, picture_of_latents
from ...training.stream import Step, Stream
from ...training.weights import averaged
from ..base import BATCH, CATEGORY, MODEL, StepNode
from ..inputs import UNIQUE_ID, choice, integer, number, wire
from ..models.model import check_guidance
from .negative import negative_rows


@dataclass(frozen=True)
class Straightening:
    """How many pairs are made, and from when on they take which share of a batch."""

    pairs: int
    steps: int
    probability: float
    start: float

    def begun(self, update: int, of: int) -> bool:
        return self.probability > 0 and update >= round(self.start * of)


class Reflow(StepNode):
    NODE_ID = "RolloutReflow"
    DISPLAY_NAME = "Reflow"
    CATEGORY = f"{CATEGORY}/rollout"
    DESCRIPTION = (
        "Makes the model need fewer sampling steps: lets it turn noise into images with its own weights, and trains it "
        "on the straight way between the two, which any sampler walks in few steps. Its images get no better by it, so "
        "let it learn them first: begin late."
    )
    SEARCH_ALIASES = ("rectified flow", "few steps", "straighten", "distill", "fast sampling", "turbo")
    RETURN_TYPES = (BATCH,)
    RETURN_NAMES = ("batch",)
    OUTPUT_TOOLTIPS = ("The batch, with pairs of noise and image that the model has made in place of some items.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "batch": wire(BATCH, "From Noisy Batch. Its captions or classes are those of the pairs."),
                "model": wire(MODEL, "The model that is being trained."),
                "start": number(
                    0.7,
                    0.0,
                    1.0,
                    0.05,
                    "No pairs before this share of the training: 0.7 = in the last 30%. 0 for a model that was trained "
                    "before.",
                ),
                "probability": number(
                    1.0, 0.0, 1.0, 0.05, "Share of the batch that are pairs. Less than 1 bends the paths again."
                ),
                "pairs": integer(
                    2000,
                    1,
                    1_000_000,
                    "How many pairs the model makes, a batch of them in each training step until it has them. Too few "
                    "are learnt by heart.",
                ),
                "steps": integer(8, 1, 1000, "Sampling steps for each pair. Each is a forward pass."),
                "sampler": choice(SOLVERS, "unipc", "The solver that makes the pairs."),
                "order": integer(2, 1, 3, "Order of unipc and dpm; the others ignore it."),
            },
            "optional": {
                "guidance": number(
                    1.0,
                    1.0,
                    30.0,
                    0.5,
                    "Make the pairs with classifier-free guidance: the model then needs none any more (guidance is "
                    "distilled). 1 is off; above, a forward pass is for twice the items.",
                ),
            },
            "hidden": UNIQUE_ID,
        }

    def build(
        self,
        unique_id: str,
        batch: Stream,
        model: Stream,
        sampler: str,
        order: int,
        guidance: float = 1.0,
        **options: Any,
    ) -> dict[str, Any]:
        if not all(schedule.is_flow_matching for schedule in batch.constants(Schedule)):
            raise ValueError("batch: straight ways are flow matching's; wire a flow-matching schedule into Noisy Batch")
        if any(batch.constants(RolloutPlan)):
            raise ValueError("batch: these latents were rolled out already; wire Noisy Batch into this Reflow")
        if guidance != 1:
            check_guidance(model.about)
        plan, solve = Straightening(**options), solver(sampler, order)
        inputs = {"batch": batch, "model": model, "plan": plan, "solve": solve, "guide": Guidance(guidance)}
        asked = plan.pairs * plan.steps * solve.calls * (2 if guidance != 1 else 1)
        text = f"{plan.pairs} pairs take the network's work for {asked:,} images, once" if plan.probability else "off"
        return {"ui": {"text": [text]}, "result": (self.stream(unique_id, inputs),)}

    def step(
        self, step: Step, batch: NoisyBatch, model: Model, plan: Straightening, solve: Solver, guide: Guidance
    ) -> NoisyBatch:
        made: PairsByKind = step.keep(lambda: PairsByKind(plan.pairs))
        if not plan.begun(step.update, step.run.steps):
            return batch
        pairs, random = made.of(kind_of(batch)), step.generator()
        if len(pairs) < plan.pairs:
            if guide.active:
                guide = replace(guide, negative=negative_rows(step, batch.negative))
            shape, device = (batch.share.total, *batch.noise.shape[1:]), batch.x.device
            noise = batch.share.of(torch.randn(shape, generator=step.generator(device), device=device))
            with torch.no_grad(), model.evaluating(), averaged(step.run, model.network):
                latents = from_noise(guide.of(model), batch.schedule, noise, plan.steps, batch.conditioning, solve)
            pairs.add(everybodys(step.run.processes, batch.share, packed(latents, noise, batch.conditioning)))
            step.show("pairs", lambda: picture_of_latents(latents, colours=colours_of(step.run)))
        step.report("pairs", float(len(pairs)))
        return pairs.put_into(batch, places_for(plan.probability, batch.share.total, random), random)


def everybodys(processes: Processes, share: Share, own: dict[str, Tensor]) -> dict[str, Tensor]:
    """The values (items, ...) of the whole global batch, in its order, of those that each process has made."""
    if share.is_whole:
        return own
    parts = processes.gathered_in_step((share.places, {name: value.cpu() for name, value in own.items()}))
    order = torch.cat([places for places, _ in parts]).argsort()
    return {name: torch.cat([part[name] for _, part in parts])[order].to(own[name].device) for name in own}
