"""Losses: what the model is punished for."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...diffusion import losses, reflexflow
from ...diffusion.noisy_batch import NoisyBatch, Perturbation, predict
from ...diffusion.rollouts.plan import RolloutPlan
from ...diffusion.schedules import Schedule
from ...models.model import Model
from ...training.stream import Step, Stream
from ..base import BATCH, CATEGORY, LOSS, MODEL, StepNode
from ..inputs import UNIQUE_ID, choice, number, switch, wire
from .reference import REFERENCE, Reference, Target, reference_cost, reference_in, wanted_output

TARGET = choice(
    ("original", "clean", "trajectory"),
    "original",
    "What rolled-out latents are trained towards. original: the noise that was drawn. clean: straight at the clean "
    "image from where the latents really are. trajectory: back onto the model's own path, walked in finer steps; it "
    "does not blur.",
)


class DiffusionLoss(StepNode):
    NODE_ID = "RolloutDiffusionLoss"
    DISPLAY_NAME = "Diffusion Loss"
    CATEGORY = f"{CATEGORY}/rollout"
    DESCRIPTION = (
        "The usual loss: how far the network's prediction is from the target. Works on teacher-forced and on "
        "rolled-out latents, for flow matching and for epsilon, v and sample prediction."
    )
    SEARCH_ALIASES = ("mse", "huber", "min snr")
    RETURN_TYPES = (LOSS,)
    RETURN_NAMES = ("loss",)
    OUTPUT_TOOLTIPS = ("One loss per image of the batch.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "batch": wire(BATCH, "What to train on: from Noisy Batch or Rollout."),
                "model": wire(MODEL, "The model that is being trained."),
                "loss_type": choice(
                    ("mse", "huber"), "mse", "mse: squared error. huber: large errors count less, for noisy data."
                ),
                "huber_c": number(0.1, 0.001, 10.0, 0.01, "huber: where it turns from squared to straight."),
                "snr_gamma": number(
                    0.0,
                    0.0,
                    100.0,
                    0.5,
                    "Min-SNR weighting: low-noise levels count less. 5 is usual; 0 turns it off. With zero terminal "
                    "SNR the last level then counts nothing.",
                ),
                "target": TARGET,
            },
            "optional": REFERENCE,
            "hidden": UNIQUE_ID,
        }

    def build(self, unique_id: str, batch: Stream, model: Stream, target: Target, **widgets: Any) -> dict[str, Any]:
        reference, others = reference_in(widgets)
        inputs = {"batch": batch, "model": model, "target": target, "reference": reference, **others}
        stream = self.stream(unique_id, inputs, wants=reference.wants(target))
        return {"ui": reference_cost(batch, model, target, reference), "result": (stream,)}

    def step(
        self,
        step: Step,
        batch: NoisyBatch,
        model: Model,
        loss_type: losses.LossType,
        huber_c: float,
        snr_gamma: float,
        target: Target,
        reference: Reference,
    ) -> Tensor:
        wanted = wanted_output(step, model, batch, target, reference)
        output = predict(model, batch)
        loss = losses.masked_mean(losses.elementwise(output, wanted, loss_type, huber_c), batch.mask)
        loss = losses.weighted(loss, losses.target_weight(batch, target))
        if snr_gamma:
            loss = losses.weighted(loss, losses.min_snr_weight(batch.schedule, batch.timestep, snr_gamma))
        return losses.weighted(loss, batch.weight)


class ReflexFlowLoss(StepNode):
    NODE_ID = "RolloutReflexFlowLoss"
    DISPLAY_NAME = "ReflexFlow Loss"
    CATEGORY = f"{CATEGORY}/rollout"
    DESCRIPTION = (
        "For flow matching with rollouts: steers drifted latents back towards the clean image (anti-drift) and "
        "stresses what rolling out took away, mostly low frequencies (frequency compensation). Items that were not "
        "rolled out get the ordinary loss."
    )
    SEARCH_ALIASES = ("anti drift", "frequency compensation", "defar", "adr")
    RETURN_TYPES = (LOSS,)
    RETURN_NAMES = ("loss",)
    OUTPUT_TOOLTIPS = ("One loss per image of the batch.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "batch": wire(BATCH, "What to train on, from Rollout."),
                "model": wire(MODEL, "The model that is being trained."),
                "reflexflow": choice(
                    ("auto", "enable", "disable"),
                    "auto",
                    "auto: on for flow matching with rollouts, otherwise the ordinary loss. enable: refuse to run "
                    "where it cannot work. disable: the ordinary loss.",
                ),
                "alpha": number(
                    1.0, 0.0, 100.0, 0.1, "Strength of the frequency compensation: how far its weights go from 1."
                ),
                "beta1": number(
                    10.0,
                    0.0,
                    1000.0,
                    0.1,
                    "Weight of the anti-drift term: the velocity shall point straight away from the clean image.",
                ),
                "beta2": number(1.0, 0.0, 1000.0, 0.1, "Weight of the frequency-compensated loss."),
                "objective": choice(
                    ("spec", "defar"),
                    "spec",
                    "spec: on the rolled-out latents of the Rollout node, one gradient pass. defar: drifts every item "
                    "itself by one big step and trains both ends; three forward passes.",
                ),
                "target": TARGET,
            },
            "optional": {
                "fc_norm": choice(
                    ("mean", "l1"),
                    "mean",
                    "mean: alpha means the same at every image size. l1: as SimpleTuner, where the compensation "
                    "vanishes at real image sizes.",
                    advanced=True,
                ),
                "min_sigma": number(
                    0.01,
                    0.0,
                    1.0,
                    0.01,
                    "No anti-drift below this noise level, where its direction is mostly rounding noise.",
                    advanced=True,
                ),
                "detach_drift": switch(
                    False,
                    "defar: do not send the gradient back through the drift step. Half the memory, a weaker lesson.",
                    advanced=True,
                ),
                **REFERENCE,
            },
            "hidden": UNIQUE_ID,
        }

    def build(
        self,
        unique_id: str,
        batch: Stream,
        model: Stream,
        reflexflow: str,
        objective: str,
        target: Target,
        **widgets: Any,
    ) -> dict[str, Any]:
        flow = all(schedule.is_flow_matching for schedule in batch.constants(Schedule))
        rolls = any(plan.active for plan in batch.constants(RolloutPlan))
        if reflexflow == "enable" and not flow:
            raise ValueError(
                "reflexflow is for flow matching: wire a flow-matching schedule, or choose auto or disable"
            )
        defar = objective == "defar"
        if defar and rolls and reflexflow != "disable":
            raise ValueError("objective defar makes its own drift: wire Noisy Batch straight into this loss")
        perturbed = (p for p in batch.constants(Perturbation) if p.mixflow or p.input_perturbation)
        if defar and any(perturbed) and reflexflow != "disable":
            raise ValueError(
                "objective defar does not look at what Noisy Batch has perturbed: set its mixflow and "
                "input_perturbation to 0, or choose objective spec"
            )
        active = reflexflow == "enable" or (reflexflow == "auto" and flow and (rolls or defar))
        if active and not defar and target == "trajectory" and widgets["beta1"]:
            raise ValueError(
                "target trajectory leads back to the model's own path and beta1 straight to the clean image: set beta1 "
                "to 0, or choose another target"
            )
        reference, others = reference_in(widgets)
        inputs = {"batch": batch, "model": model, "active": active, "objective": objective, "target": target}
        inputs |= {"reference": reference, **others}
        wants = frozenset({"clean_output"} if active and not defar and widgets["alpha"] else ())
        stream = self.stream(unique_id, inputs, wants=wants | reference.wants(target))
        return {"ui": reference_cost(batch, model, target, reference), "result": (stream,)}

    def step(
        self,
        step: Step,
        batch: NoisyBatch,
        model: Model,
        active: bool,
        objective: str,
        target: Target,
        reference: Reference,
        detach_drift: bool = False,
        **weights: Any,
    ) -> Tensor:
        if active and objective == "defar":
            generator = step.generator()
            loss, parts = reflexflow.defar(model, batch, generator=generator, detach_drift=detach_drift, **weights)
        else:
            wanted = wanted_output(step, model, batch, target, reference)
            output = predict(model, batch)
            item_weight = losses.target_weight(batch, target)
            if not active:
                loss = losses.masked_mean(losses.elementwise(output, wanted), batch.mask)
                return losses.weighted(losses.weighted(loss, item_weight), batch.weight)
            loss, parts = reflexflow.spec(output, wanted, batch, item_weight=item_weight, **weights)
        weighed = len(batch.x) if objective == "defar" else int(batch.rolled.sum())
        for name, value in parts.items():
            step.report(f"loss_{name}", value) if value.dim() else step.report(name, value, of=weighed)
        return losses.weighted(loss, batch.weight)
