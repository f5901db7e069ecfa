"""Stable Diffusion 1.x and 2.x: a U-Net that reads CLIP's last hidden state through cross-attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...diffusion.solvers import Conditioning
from .pretrained import PretrainedModel

UNET_TARGETS = {
    "attention": ("to_q", "to_k", "to_v", "to_out.0"),
    "all": ("to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2", "conv1", "conv2"),
}


def tokens_of(captions: list[str], *tokenizers: Any) -> Tensor:
    """The numbers (captions, tokenizers, length) that CLIP reads, as the pipelines make them: padded and cut."""
    options = {"padding": "max_length", "truncation": True, "return_tensors": "pt"}
    rows = [tokenizer(captions, max_length=tokenizer.model_max_length, **options) for tokenizer in tokenizers]
    return torch.stack([row.input_ids for row in rows], 1)


class StableDiffusion(PretrainedModel):
    title = "Stable Diffusion 1.x / 2.x"
    pipeline_class = "StableDiffusionPipeline"
    network_class = "UNet2DConditionModel"
    network_part = "unet"
    text_parts = ("tokenizer", "text_encoder")
    trainable_text_parts = ("text_encoder",)
    single_file_types = ("v1", "v2")
    patch = 8  # the U-Net halves its latents three times
    lora_targets = UNET_TARGETS

    def predict(self, x: Tensor, timestep: Tensor, conditioning: Conditioning) -> Tensor:
        return self.network(x, timestep, encoder_hidden_states=conditioning["text"]).sample

    @classmethod
    def encode_text(cls, pipeline: Any, captions: list[str], negative: bool) -> Conditioning:
        text, _ = pipeline.encode_prompt(captions, pipeline.text_encoder.device, 1, False)
        return {"text": text, "tokens": tokens_of(captions, pipeline.tokenizer)}

    @classmethod
    def embed(cls, encoders: Sequence[nn.Module], tokens: Tensor) -> Conditioning:
        return {"text": encoders[0](tokens[:, 0])[0]}

    @classmethod
    def sampling_arguments(cls, positive: Conditioning, negative: Conditioning | None) -> dict[str, Any]:
        arguments = {"prompt_embeds": positive["text"]}
        return arguments | ({"negative_prompt_embeds": negative["text"]} if negative else {})
