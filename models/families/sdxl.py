"""Stable Diffusion XL: a larger U-Net that reads two CLIPs, and is told the image's sizes and its crop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...diffusion.solvers import Conditioning
from .clip import MOST_WINDOWS, alike, first_of, joined, split, tokens_of
from .pretrained import PretrainedModel, prompt_arguments
from .sd import UNET_TARGETS


class StableDiffusionXL(PretrainedModel):
    title = "Stable Diffusion XL"
    pipeline_class = "StableDiffusionXLPipeline"
    network_class = "UNet2DConditionModel"
    network_part = "unet"
    text_parts = ("tokenizer", "text_encoder", "tokenizer_2", "text_encoder_2")
    trainable_text_parts = ("text_encoder", "text_encoder_2")
    single_file_types = ("xl_base",)
    clip_skips = (0, 2)  # it was made with the last layer but one
    patch = 8
    lora_targets = UNET_TARGETS

    def predict(self, x: Tensor, timestep: Tensor, conditioning: Conditioning) -> Tensor:
        added = {"text_embeds": conditioning["pooled"], "time_ids": conditioning["time_ids"]}
        text = conditioning["text"]
        return self.network(x, timestep, encoder_hidden_states=text, added_cond_kwargs=added).sample

    @classmethod
    def encode_text(cls, pipeline: Any, captions: list[str], negative: bool) -> Conditioning:
        tokens = tokens_of(captions, pipeline.tokenizer, pipeline.tokenizer_2)
        return {**cls.embed([pipeline.text_encoder, pipeline.text_encoder_2], tokens), "tokens": tokens}

    @classmethod
    def most_tokens(cls, pipeline: Any) -> int:
        return MOST_WINDOWS * (pipeline.tokenizer.model_max_length - 2)

    @classmethod
    def embed(cls, encoders: Sequence[nn.Module], tokens: Tensor) -> Conditioning:
        of_each: list[tuple[Tensor, Any]] = [*zip(tokens.unbind(1), encoders, strict=True)]
        read = [encoder(split(one, encoder).to(encoder.device), output_hidden_states=True) for one, encoder in of_each]
        text = torch.cat([one.hidden_states[-2] for one in read], -1)
        return {"text": joined(text, len(tokens)), "pooled": first_of(read[-1][0], len(tokens))}

    @classmethod
    def describe_size(cls, original: tuple[int, int], corner: tuple[int, int], size: tuple[int, int]) -> Conditioning:
        return {"time_ids": torch.tensor([[*original, *corner, *size]])}

    @classmethod
    def sampling_arguments(cls, positive: Conditioning, negative: Conditioning | None) -> dict[str, Any]:
        if negative:
            positive, negative = alike(positive, negative)
        return prompt_arguments(positive, negative, prompt_embeds="text", pooled_prompt_embeds="pooled")
