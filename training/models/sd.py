"""Stable Diffusion 1.x and 2.x: a U-Net that reads CLIP's last hidden state through cross-attention."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...diffusion.solvers import Conditioning
from .pretrained import PretrainedModel

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
    single_file_types = ("v1", "v2")
    patch = 8  # the U-Net halves its latents three times
    lora_targets = UNET_TARGETS

    def predict(self, x: Tensor, timestep: Tensor, conditioning: Conditioning) -> Tensor:
        return self.network(x, timestep, encoder_hidden_states=conditioning["text"]).sample

    @classmethod
    def encode_text(cls, pipeline: Any, captions: list[str], negative: bool) -> Conditioning:
        text, _ = pipeline.encode_prompt(captions, pipeline.text_encoder.device, 1, False)
        return {"text": text}

    @classmethod
    def sampling_arguments(cls, positive: Conditioning, negative: Conditioning | None) -> dict[str, Any]:
        arguments = {"prompt_embeds": positive["text"]}
        return arguments | ({"negative_prompt_embeds": negative["text"]} if negative else {})
