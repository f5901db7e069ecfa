"""Stable Diffusion 1.x and 2.x: a U-Net that reads CLIP's last hidden state through cross-attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from ...diffusion.solvers import Conditioning
from .clip import MOST_WINDOWS, alike, joined, skip_layers, split, tokens_of
from .pretrained import PretrainedModel, prompt_arguments

UNET_TARGETS = {
    "attention": ("to_q", "to_k", "to_v", "to_out.0"),
    "all": ("to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2", "conv1", "conv2"),
}


class StableDiffusion(PretrainedModel):
    title = "Stable Diffusion 1.x / 2.x"
    pipeline_class = "StableDiffusionPipeline"
    network_class = "UNet2DConditionModel"
    network_part = "unet"
    text_parts = ("tokenizer", "text_encoder")
    trainable_text_parts = ("text_encoder",)
    single_file_types = ("v1", "v2")
    clip_skips = tuple(range(24))
    patch = 8  # the U-Net halves its latents three times
    lora_targets = UNET_TARGETS

    def predict(self, x: Tensor, timestep: Tensor, conditioning: Conditioning) -> Tensor:
        return self.network(x, timestep, encoder_hidden_states=conditioning["text"]).sample

    @classmethod
    def encode_text(cls, pipeline: Any, captions: list[str], negative: bool) -> Conditioning:
        tokens = tokens_of(captions, pipeline.tokenizer)
        return {**cls.embed([pipeline.text_encoder], tokens), "tokens": tokens}

    @classmethod
    def skip_layers(cls, pipeline: Any, clip_skip: int) -> None:
        skip_layers(pipeline.text_encoder, clip_skip)

    @classmethod
    def most_tokens(cls, pipeline: Any) -> int:
        return MOST_WINDOWS * (pipeline.tokenizer.model_max_length - 2)

    @classmethod
    def embed(cls, encoders: Sequence[nn.Module], tokens: Tensor) -> Conditioning:
        encoder: Any = encoders[0]
        return {"text": joined(encoder(split(tokens[:, 0], encoder).to(encoder.device))[0], len(tokens))}

    @classmethod
    def sampling_arguments(cls, positive: Conditioning, negative: Conditioning | None) -> dict[str, Any]:
        if negative:
            positive, negative = alike(positive, negative)
        return prompt_arguments(positive, negative, prompt_embeds="text")
