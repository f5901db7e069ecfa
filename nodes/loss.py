"""Losses: what the model is punished for."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..diffusion import losses
from ..diffusion.predictions import per_sample
from ..diffusion.rollout import NoisyBatch, RolloutPlan
from ..diffusion.schedules import Schedule
from ..training.models import Model
from ..training.stream import Step, Stream
from .base import BATCH, LOSS, MODEL, StepNode

TARGET = (
    ["original", "clean"],
    {
        "default": "original",
        "tooltip": "What rolled-out latents are trained towards. original: the noise that was drawn. clean: straight "
        "at the clean image from where the latents really are.",
    },
)


class DiffusionLoss(StepNode):
    NODE_ID = "RolloutDiffusionLoss"
    DISPLAY_NAME = "Diffusion Loss"
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
                "batch": (BATCH, {"tooltip": "What to train on: from Noisy Batch or Rollout."}),
                "model": (MODEL, {"tooltip": "The model that is being trained."}),
                "loss_type": (
                    ["mse", "huber"],
                    {"default": "mse", "tooltip": "mse: squared error. huber: large errors count less, for noisy data."},
                ),
                "huber_c": (
                    "FLOAT",
                    {"default": 0.1, "min": 0.001, "max": 10.0, "step": 0.01, "tooltip": "huber: where it turns from "
                     "squared to straight."},
                ),
                "snr_gamma": (
                    "FLOAT",
                    {"default": 0.0, "min": 0.0, "max": 100.0, "step": 0.5, "tooltip": "Min-SNR weighting: low-noise "
                     "levels count less. 5 is usual; 0 turns it off."},
                ),
                "target": TARGET,
            },
            "hidden": {"unique_id": "UNIQUE_ID"},
        }  # fmt: skip

    def step(  # type: ignore[override]
        self,
        step: Step,
        batch: NoisyBatch,
        model: Model,
        loss_type: losses.LossType,
        huber_c: float,
        snr_gamma: float,
        target: losses.TargetType,
    ) -> Tensor:
        output = predict(step, model, batch)
        loss = losses.per_item(losses.elementwise(output, losses.target(batch, target), loss_type, huber_c))
        if snr_gamma:
            weight = losses.min_snr_weight(batch.schedule, batch.timestep, snr_gamma)
            loss = loss * per_sample(weight, loss)
        return loss


def predict(step: Step, model: Model, batch: NoisyBatch) -> Tensor:
    """The training forward: the network's output (B, ...) at the batch's latents, with gradient."""
    timestep = batch.timestep.to(step.run.device, batch.x.dtype, non_blocking=True)
    return model(batch.x, timestep, batch.conditioning)


class ReflexFlowLoss(StepNode):
    NODE_ID = "RolloutReflexFlowLoss"
    DISPLAY_NAME = "ReflexFlow Loss"
    DESCRIPTION = (
        "For flow matching with rollouts: steers drifted latents back towards the clean image (anti-drift) and stresses "
        "what rolling out took away, mostly low frequencies (frequency compensation). Items that were not rolled out "
        "get the ordinary loss."
    )
    SEARCH_ALIASES = ("anti drift", "frequency compensation", "defar", "adr")
    RETURN_TYPES = (LOSS,)
    RETURN_NAMES = ("loss",)
    OUTPUT_TOOLTIPS = ("One loss per image of the batch.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "batch": (BATCH, {"tooltip": "What to train on, from Rollout."}),
                "model": (MODEL, {"tooltip": "The model that is being trained."}),
                "reflexflow": (
                    ["auto", "enable", "disable"],
                    {"default": "auto", "tooltip": "auto: on for flow matching with rollouts, otherwise the ordinary "
                     "loss. enable: refuse to run where it cannot work. disable: the ordinary loss."},
                ),
                "alpha": (
                    "FLOAT",
                    {"default": 1.0, "min": 0.0, "max": 100.0, "step": 0.1, "tooltip": "Strength of the frequency "
                     "compensation: how far its weights go from 1."},
                ),
                "beta1": (
                    "FLOAT",
                    {"default": 10.0, "min": 0.0, "max": 1000.0, "step": 0.1, "tooltip": "Weight of the anti-drift term: "
                     "the predicted velocity shall point straight away from the clean image."},
                ),
                "beta2": (
                    "FLOAT",
                    {"default": 1.0, "min": 0.0, "max": 1000.0, "step": 0.1, "tooltip": "Weight of the "
                     "frequency-compensated loss."},
                ),
                "target": TARGET,
                "fc_norm": (
                    ["mean", "l1"],
                    {"default": "mean", "tooltip": "mean: alpha means the same at every image size. l1: as SimpleTuner, "
                     "where the compensation vanishes at real image sizes.", "advanced": True},
                ),
                "min_sigma": (
                    "FLOAT",
                    {"default": 0.01, "min": 0.0, "max": 1.0, "step": 0.01, "tooltip": "No anti-drift below this noise "
                     "level, where its direction is mostly rounding noise.", "advanced": True},
                ),
            },
            "hidden": {"unique_id": "UNIQUE_ID"},
        }  # fmt: skip

    def build(self, unique_id: str, batch: Stream, reflexflow: str, **inputs: Any) -> tuple[Stream]:  # type: ignore[override]
        flow = all(schedule.is_flow_matching for schedule in batch.constants(Schedule))
        rolls = any(plan.active for plan in batch.constants(RolloutPlan))
        if reflexflow == "enable" and not flow:
            raise ValueError(
                "reflexflow is for flow matching: wire a flow-matching schedule, or choose auto or disable"
            )
        active = reflexflow == "enable" or (reflexflow == "auto" and flow and rolls)
        wants = frozenset({"clean_output"} if active and inputs["alpha"] else ())
        return (self.stream(unique_id, {"batch": batch, "active": active, **inputs}, wants=wants),)

    def step(  # type: ignore[override]
        self,
        step: Step,
        batch: NoisyBatch,
        model: Model,
        active: bool,
        alpha: float,
        beta1: float,
        beta2: float,
        target: losses.TargetType,
        fc_norm: losses.FrequencyNorm,
        min_sigma: float,
    ) -> Tensor:
        output = predict(step, model, batch)
        error = losses.elementwise(output, losses.target(batch, target))
        if not active:
            return losses.per_item(error)
        weight = losses.frequency_weight(output, batch, alpha, fc_norm)
        rolled = batch.rolled.to(error.device, error.dtype, non_blocking=True)
        matching = losses.per_item(weight * error) * (1 + (beta2 - 1) * rolled)
        drifting = beta1 * losses.anti_drift(output, batch, min_sigma)
        step.report("loss_matching", matching)
        step.report("loss_anti_drift", drifting)
        return matching + drifting
