"""FLUX.2: a transformer on latents in patches of 2x2, normalised by their own means; dev reads Mistral, klein Qwen3."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...diffusion.rollouts.guidance import TOLD
from ...diffusion.schedules import FlowMatching, Schedule
from ...diffusion.solvers import Conditioning
from .pretrained import CONTROL, PretrainedModel, prompt_arguments
from .sd3 import JOINT_ATTENTION
from .vae import Moments, moments_of_patches

SINGLE_ATTENTION = (
    "attn.to_qkv_mlp_proj",
    *(f"single_transformer_blocks.{block}.attn.to_out" for block in range(48)),
)
"""Attention and perceptron in one, in the blocks that see text and image as one row."""
MLP = ("ff.linear_in", "ff.linear_out", "ff_context.linear_in", "ff_context.linear_out")
STEPS = 50
"""Its shift depends on the number of sampling steps too; this is its pipelines' default."""


class Flux2(PretrainedModel):
    network_class = "Flux2Transformer2DModel"
    packed = 4
    text_parts = ("tokenizer", "text_encoder")
    control = "may"
    lora_targets = {  # noqa: RUF012
        "attention": (*JOINT_ATTENTION, *SINGLE_ATTENTION),
        "all": (*JOINT_ATTENTION, *SINGLE_ATTENTION, *MLP),
    }

    @classmethod
    def schedule(cls, schedule: Schedule, index: Mapping[str, Any]) -> Schedule:
        """Its pipelines compute the shift by themselves, and ask the scheduler's settings only whether to shift."""
        if not isinstance(schedule, FlowMatching) or not schedule.max_shift:
            return schedule
        return replace(schedule, base_shift=shift_at(256), max_shift=shift_at(4096), base_tokens=256, max_tokens=4096)

    def predict(self, x: Tensor, timestep: Tensor, conditioning: Conditioning) -> Tensor:
        from diffusers import Flux2Pipeline as Pipeline

        patches, text = in_patches(x), conditioning["text"]
        height, width = patches.shape[-2:]
        tokens, where = Pipeline._pack_latents(patches), places(height, width, 1, x.device)
        seen = tokens.shape[1]
        if CONTROL in conditioning:
            shown = in_patches(conditioning[CONTROL])
            tokens = torch.cat([tokens, Pipeline._pack_latents(shown)], dim=1)
            where = torch.cat([where, places(shown.shape[-2], shown.shape[-1], 1, x.device, picture=10)])
        guided = self.network.config.guidance_embeds
        output = self.network(
            tokens,
            timestep=timestep / 1000,
            guidance=conditioning.get(TOLD, x.new_full((len(x),), self.guidance)) if guided else None,
            encoder_hidden_states=text,
            txt_ids=places(1, 1, text.shape[1], x.device),
            img_ids=where,
        ).sample[:, :seen]
        return out_of_patches(output.transpose(1, 2).unflatten(2, (height, width)))

    @classmethod
    def encode_text(cls, pipeline: Any, captions: list[str], negative: bool) -> Conditioning:
        text, _ = pipeline.encode_prompt(captions, device=pipeline.text_encoder.device)
        return {"text": text}

    @classmethod
    def sampling_arguments(cls, positive: Conditioning, negative: Conditioning | None) -> dict[str, Any]:
        return {"prompt_embeds": positive["text"]}

    @classmethod
    def moments(cls, vae: Any, latents: Tensor) -> Moments:
        return moments_of_patches(vae, latents, out_of_patches)


class Flux2Dev(Flux2):
    title = "FLUX.2 dev"
    pipeline_class = "Flux2Pipeline"
    attention = "any"
    single_file_types = ("flux-2-dev",)
    negative_prompts = False
    told_guidance = True
    longest_text = 470  # of 512, beside what its system message takes
    unread = ("lm_head.", "model.vision_tower.", "model.multi_modal_projector.")

    @classmethod
    def own_parts(cls, home: Path) -> dict[str, Callable[[], Any]]:
        """Its tokenizer's folder holds a processor of pictures too, which needs torchvision and is not asked here."""
        from transformers import AutoTokenizer

        return {"tokenizer": lambda: AutoTokenizer.from_pretrained(home / "tokenizer")}

    @classmethod
    def text_weights(cls, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """ComfyUI's file of Mistral holds what reads text, and calls it as if there were nothing else."""
        alone = "model.layers.0.input_layernorm.weight" in weights
        return {
            name.replace("model.", "model.language_model.", 1) if alone else name: weights[name] for name in weights
        }


class Flux2Klein(Flux2):
    title = "FLUX.2 klein"
    pipeline_class = "Flux2KleinPipeline"
    single_file_types = ("flux-2-klein",)
    bases = ("black-forest-labs/FLUX.2-klein-base-4B", "black-forest-labs/FLUX.2-klein-base-9B")
    longest_text = 500

    @classmethod
    def sampling_arguments(cls, positive: Conditioning, negative: Conditioning | None) -> dict[str, Any]:
        return prompt_arguments(positive, negative, prompt_embeds="text")


def shift_at(tokens: int) -> float:
    """The logarithm of the shift of images of so many tokens, up to 4,300, as its pipelines sample them."""
    from diffusers.pipelines.flux2.pipeline_flux2 import compute_empirical_mu

    return compute_empirical_mu(tokens, STEPS)


def in_patches(latents: Tensor) -> Tensor:
    """(B, C, H, W) as (B, 4 C, H / 2, W / 2)."""
    return torch.nn.functional.pixel_unshuffle(latents, 2)


def out_of_patches(patches: Tensor) -> Tensor:
    return torch.nn.functional.pixel_shuffle(patches, 2)


def places(height: int, width: int, length: int, device: torch.device, picture: int = 0) -> Tensor:
    """Where each token lies (tokens, 4): its picture (one that is shown is 10), row, column, and number in the text."""
    sides = (torch.arange(side, device=device) for side in (height, width, length))
    return torch.cartesian_prod(torch.full((1,), picture, device=device), *sides)
