"""Ideogram 4: text and image in one row, thirteen layers of Qwen3-VL, FLUX.2's VAE; a network of its own guides it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ...diffusion.schedules import FlowMatching, Schedule
from ...diffusion.solvers import Conditioning
from ..ragged import join, texts_of
from . import flux2
from .ideogram4_pipeline import encoded_pipeline
from .pretrained import PretrainedModel
from .vae import Moments, moments_of_patches

ATTENTION = ("attention.to_q", "attention.to_k", "attention.to_v", "attention.to_out.0")


class Ideogram4(PretrainedModel):
    title = "Ideogram 4"
    pipeline_class = "Ideogram4Pipeline"
    since = "0.39"
    network_class = "Ideogram4Transformer2DModel"
    packed = 4
    attention = "masked"
    text_parts = ("tokenizer", "text_encoder")
    guide_part = "unconditional_transformer"
    single_file_types = ("ideogram4",)
    original_mark = ".attention.qkv."
    bases = ("CalamitousFelicitousness/Ideogram-4-bf16-Diffusers",)
    unread = ("lm_head.", "visual.")
    density = "logit_normal"
    longest_text = 100_000  # nothing is cut off
    lora_targets = {  # noqa: RUF012
        "attention": ATTENTION,
        "all": (*ATTENTION, "feed_forward.w1", "feed_forward.w2", "feed_forward.w3"),
    }

    @classmethod
    def pipeline(cls) -> Any:
        return encoded_pipeline()

    @classmethod
    def schedule(cls, schedule: Schedule, index: Mapping[str, Any]) -> Schedule:
        """Its pipeline's levels are the quantiles of those that it was trained on; a 512 x 512 image is not shifted."""
        assert isinstance(schedule, FlowMatching)
        return replace(schedule, logit_std=1.5, unshifted_tokens=1024)

    def predict(self, x: Tensor, timestep: Tensor, conditioning: Conditioning) -> Tensor:
        """Its time, and so what it puts out, goes from noise to image."""
        from diffusers.models.transformers import transformer_ideogram4 as its

        tokens, text, mask = in_tokens(x), conditioning["text"], conditioning["mask"]
        words, pixels = text.shape[1], tokens.shape[1]
        places = torch.arange(words, device=x.device)[:, None].expand(-1, 3)
        places = torch.cat([places, grid(x) + its.IMAGE_POSITION_OFFSET]).expand(len(x), -1, -1)
        whose = torch.where(mask, 1, its.SEQUENCE_PADDING_INDICATOR)
        what = torch.where(mask, its.LLM_TOKEN_INDICATOR, 0)
        output = self.network(
            F.pad(tokens, (0, 0, words, 0)),
            timestep=(1 - timestep / 1000).to(x.dtype),  # as its pipeline rounds it
            encoder_hidden_states=F.pad(text, (0, 0, 0, pixels)),
            position_ids=places,
            segment_ids=F.pad(whose, (0, pixels), value=1),
            indicator=F.pad(what, (0, pixels), value=its.OUTPUT_IMAGE_INDICATOR),
        ).sample
        return -out_of_tokens(output[:, words:], x.shape[-2] // 2, x.shape[-1] // 2)

    @classmethod
    def encode_text(cls, pipeline: Any, captions: list[str], negative: bool) -> Conditioning:
        """Each at its own length; without a caption it sees no text, of which one masked token is left."""
        encoder, told = pipeline.text_encoder, []
        for caption in captions:
            text, *_ = pipeline.encode_prompt([caption], 0, 0, chat_length(pipeline.tokenizer, caption), encoder.device)
            text = text[:, :1] * 0 if negative else text
            mask = torch.full(text.shape[:2], not negative, device=encoder.device)
            told.append({"text": text.to(encoder.dtype), "mask": mask})  # the pipeline widens it
        return join(told)

    @classmethod
    def sampling_arguments(cls, positive: Conditioning, negative: Conditioning | None) -> dict[str, Any]:
        texts = texts_of(positive)
        return {"prompt": texts, "max_sequence_length": max(map(len, texts))}

    @classmethod
    def moments(cls, vae: Any, latents: Tensor) -> Moments:
        return moments_of_patches(vae, latents, out_of_patches)

    @classmethod
    def from_original(cls, checkpoint: Mapping[str, Tensor]) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for name, value in checkpoint.items():
            if cls.original_mark in name:
                parts = zip(("to_q", "to_k", "to_v"), value.chunk(3), strict=True)
                found |= {name.replace("qkv", part): rows for part, rows in parts}
            else:
                found[name.replace(".attention.o.", ".attention.to_out.0.")] = value
        return found

    @classmethod
    def text_weights(cls, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """ComfyUI's file calls what reads text as if there were nothing else, or as one part of what can speak, too."""
        bare = {name.removeprefix("model."): value for name, value in weights.items()}
        alone = "layers.0.input_layernorm.weight" in bare
        return {f"language_model.{name}" if alone else name: value for name, value in bare.items()}


def chat_length(tokenizer: Any, caption: str) -> int:
    """How many tokens a caption has as its pipeline gives it to the text encoder."""
    said = [{"role": "user", "content": [{"type": "text", "text": caption}]}]
    text = tokenizer.apply_chat_template(said, add_generation_prompt=True, tokenize=False)
    return len(tokenizer(text, add_special_tokens=False).input_ids)


def in_patches(latents: Tensor) -> Tensor:
    """(B, C, H, W) as (B, 4 C, H / 2, W / 2): the places of a patch first, then the channels, unlike FLUX.2."""
    return flux2.in_patches(latents).unflatten(1, (-1, 4)).transpose(1, 2).flatten(1, 2)


def out_of_patches(patches: Tensor) -> Tensor:
    return flux2.out_of_patches(patches.unflatten(1, (4, -1)).transpose(1, 2).flatten(1, 2))


def in_tokens(latents: Tensor) -> Tensor:
    return in_patches(latents).flatten(2).transpose(1, 2)


def out_of_tokens(tokens: Tensor, height: int, width: int) -> Tensor:
    return out_of_patches(tokens.transpose(1, 2).unflatten(2, (height, width)))


def grid(x: Tensor) -> Tensor:
    """Where each token of latents (B, C, H, W) lies (tokens, 3): 0, row and column."""
    sides = (torch.arange(side, device=x.device) for side in (1, x.shape[-2] // 2, x.shape[-1] // 2))
    return torch.cartesian_prod(*sides)
