"""Noise schedules, and the batch they make noisy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ...data.data import Batch
from ...diffusion.device import moved
from ...diffusion.noisy_batch import NoisyBatch as NoisyLatents
from ...diffusion.noisy_batch import Perturbation, noisy_batch
from ...diffusion.rollouts.guidance import unconditional
from ...diffusion.schedules import DDPM, Density, FlowMatching, Schedule
from ...diffusion.solvers import Conditioning
from ...runs.pictures.preview import colours_of, picture_of_latents
from ...training.stream import Step, Stream
from ..base import BATCH, CATEGORY, DATASET, SCHEDULE, Node, StepNode
from ..inputs import UNIQUE_ID, choice, integer, number, switch, wire
from .negative import negative_rows


class FlowMatchingSchedule(Node):
    NODE_ID = "RolloutFlowMatchingSchedule"
    DISPLAY_NAME = "Noise Schedule (Flow Matching)"
    CATEGORY = f"{CATEGORY}/rollout"
    DESCRIPTION = (
        "Rectified flow: the image fades into noise along a straight line, and the network learns the velocity "
        "(noise - image). The schedule of SD3, FLUX and most newer models."
    )
    SEARCH_ALIASES = ("rectified flow", "scheduler", "timestep sampling", "shift")
    RETURN_TYPES = (SCHEDULE,)
    RETURN_NAMES = ("schedule",)
    OUTPUT_TOOLTIPS = ("How much noise there is at each timestep, and what the network predicts.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "shift": number(
                    1.0,
                    0.1,
                    20.0,
                    0.1,
                    "Above 1, training and sampling spend more time at high noise. 1 for small images, 3 for SD3 at "
                    "1024 pixels.",
                ),
                "timestep_sampling": choice(
                    ("uniform", "logit_normal", "mode", "beta"),
                    "uniform",
                    "How often each noise level is trained. logit_normal and mode favour the middle, as SD3 does; beta "
                    "is shaped by the two beta settings.",
                ),
            },
            "optional": {
                "logit_mean": number(
                    0.0, -5, 5, 0.01, "Centre of logit_normal: above 0 favours high noise.", advanced=True
                ),
                "logit_std": number(
                    1.0, 0.01, 5, 0.01, "Width of logit_normal: small keeps to the middle levels.", advanced=True
                ),
                "mode_scale": number(1.29, -1, 1.75, 0.01, "Strength of mode: 0 is uniform.", advanced=True),
                "beta_alpha": number(
                    1.0, 0.05, 20, 0.01, "First parameter of beta: above the second favours high noise.", advanced=True
                ),
                "beta_beta": number(1.0, 0.05, 20, 0.01, "Second parameter of beta.", advanced=True),
            },
        }

    def build(self, timestep_sampling: Density, **options: Any) -> tuple[Schedule]:
        return (FlowMatching(density=timestep_sampling, **options),)


class DDPMSchedule(Node):
    NODE_ID = "RolloutDDPMSchedule"
    DISPLAY_NAME = "Noise Schedule (DDPM)"
    CATEGORY = f"{CATEGORY}/rollout"
    DESCRIPTION = (
        "The noise schedule of DDPM and Stable Diffusion 1.x, 2.x and XL: a table of 1,000 noise levels. The network "
        "predicts the noise (epsilon), v, or the clean image (sample)."
    )
    SEARCH_ALIASES = ("scheduler", "epsilon", "v_prediction", "zero snr")
    RETURN_TYPES = (SCHEDULE,)
    RETURN_NAMES = ("schedule",)
    OUTPUT_TOOLTIPS = ("How much noise there is at each timestep, and what the network predicts.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "beta_schedule": choice(
                    ("scaled_linear", "linear", "squaredcos_cap_v2"),
                    "scaled_linear",
                    "scaled_linear: Stable Diffusion. linear: the first DDPM, with betas from 0.0001 to 0.02. "
                    "squaredcos_cap_v2: the cosine schedule, which has no betas to set.",
                ),
                "prediction": choice(
                    ("epsilon", "v_prediction", "sample"),
                    "epsilon",
                    "What the network puts out: the noise, v, or the clean image.",
                ),
                "zero_terminal_snr": switch(
                    False,
                    "Make the last level pure noise, so that very dark and very bright images can be made. Not "
                    "possible with epsilon.",
                ),
            },
            "optional": {
                "beta_start": number(0.00085, 1e-6, 0.02, 1e-5, "First beta of the table.", advanced=True),
                "beta_end": number(0.012, 1e-5, 0.03, 1e-3, "Last beta of the table.", advanced=True),
            },
        }

    def build(self, **options: Any) -> tuple[Schedule]:
        return (DDPM(**options),)


class NoisyBatch(StepNode):
    NODE_ID = "RolloutNoisyBatch"
    DISPLAY_NAME = "Noisy Batch"
    CATEGORY = f"{CATEGORY}/rollout"
    DESCRIPTION = (
        "Draws a timestep for each image and mixes in exactly the scheduled amount of noise: ordinary teacher forcing. "
        "Wire it straight into a loss, or through Rollout first."
    )
    SEARCH_ALIASES = ("add noise", "teacher forcing", "noise latents")
    RETURN_TYPES = (BATCH,)
    RETURN_NAMES = ("batch",)
    OUTPUT_TOOLTIPS = ("Noisy latents with their clean originals, noise and timesteps.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "dataset": wire(DATASET, "Where the clean images come from."),
                "schedule": wire(SCHEDULE, "How much noise there is at each timestep."),
            },
            "optional": {
                "input_perturbation": number(
                    0.0,
                    0.0,
                    1.0,
                    0.01,
                    "The network sees a little more noise than its target tells of, so that it learns to live with its "
                    "own errors. Costs nothing. 0.1 is usual.",
                    advanced=True,
                ),
                "perturbation_steps": integer(
                    0,
                    0,
                    10_000_000,
                    "input_perturbation falls evenly to 0 over so many training steps. 0 = it stays.",
                    advanced=True,
                ),
                "mixflow": number(
                    0.0,
                    0.0,
                    1.0,
                    0.05,
                    "Flow matching: the network sees a noisier image than it is told and trained for, up to this share "
                    "of the way to noise; low levels come more often. Not with Rollout. 0.8 is usual.",
                    advanced=True,
                ),
                "noise_offset": number(
                    0.0,
                    0.0,
                    1.0,
                    0.01,
                    "Moves the noise of each channel as a whole, so that very dark and very bright images can be "
                    "learnt. 0.05 is usual; not needed with zero terminal SNR or flow matching.",
                    advanced=True,
                ),
                "label_dropout": number(
                    0.0,
                    0.0,
                    1.0,
                    0.05,
                    "Chance that the network is not told an image's class, or its caption, so that it can be sampled "
                    "with guidance. 0.1 is usual. A new model needs its null_class for it.",
                ),
            },
            "hidden": UNIQUE_ID,
        }

    def build(
        self, unique_id: str, dataset: Stream, schedule: Schedule, label_dropout: float = 0.0, **options: Any
    ) -> tuple[Stream]:
        perturbation = Perturbation(**options)
        if perturbation.mixflow and not schedule.is_flow_matching:
            raise ValueError("mixflow is for flow matching: set it to 0, or wire a flow-matching schedule")
        inputs = {"dataset": dataset, "schedule": schedule, "perturbation": perturbation}
        inputs["label_dropout"] = label_dropout
        return (self.stream(unique_id, inputs),)

    def step(
        self, step: Step, dataset: Batch, schedule: Schedule, perturbation: Perturbation, label_dropout: float
    ) -> NoisyLatents:
        latents = dataset.latents
        schedule = schedule.fitting(latents)
        levels, pixels, share = step.generator(), step.generator(latents.device), dataset.share
        timestep = drawn_timesteps(share.total, schedule, perturbation, levels)
        shape = (share.total, *latents.shape[1:])
        noise = share.of(perturbation.offset(torch.randn(shape, generator=pixels, device=latents.device), pixels))
        told = self.dropped(step, dataset, label_dropout, levels) if label_dropout else dataset.conditioning
        mask, weight, negative = dataset.mask, dataset.weight, dataset.negative
        batch = noisy_batch(latents, noise, share.of(timestep), schedule, told, mask, weight, negative)
        if dataset.dealt:
            batch = replace(batch, dealt=dataset.dealt, timestep_of_all=timestep)
        batch = perturbation.seen(batch, step.update, pixels, levels)
        step.show("noisy", lambda: picture_of_latents(batch.x, colours=colours_of(step.run)))
        return batch

    @staticmethod
    def dropped(step: Step, dataset: Batch, chance: float, generator: torch.Generator) -> Conditioning:
        """What the network is told, without the class or caption of some items."""
        if dataset.negative is None:
            raise ValueError("label_dropout: this data set has neither classes nor captions; set it to 0")
        share = dataset.share
        drop = moved(share.of(torch.rand(share.total, generator=generator) < chance), step.run.device)
        nothing = unconditional(dataset.conditioning, negative_rows(step, dataset.negative))
        return {
            name: torch.where(drop.reshape(-1, *[1] * (value.dim() - 1)), nothing[name], value)
            for name, value in dataset.conditioning.items()
        }


def drawn_timesteps(count: int, schedule: Schedule, perturbation: Perturbation, levels: torch.Generator) -> Tensor:
    """Where each item of a global batch trains (count,), float64."""
    return perturbation.timestep(schedule.sample_timesteps(count, levels), schedule, levels)
