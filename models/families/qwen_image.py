"""Qwen-Image: a transformer on packed 2x2 latents of a VAE of videos, that reads Qwen2.5-VL."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...diffusion.solvers import Conditioning
from .pretrained import CONTROL, PretrainedModel, prompt_arguments
from .sd3 import JOINT_ATTENTION

MLP = ("img_mlp.net.0.proj", "img_mlp.net.2", "txt_mlp.net.0.proj", "txt_mlp.net.2")


class QwenImage(PretrainedModel):
    title = "Qwen-Image"
    pipeline_class = "QwenImagePipeline"
    network_class = "QwenImageTransformer2DModel"
    packed = 4
    text_parts: tuple[str, ...] = ("tokenizer", "text_encoder")
    vae_of_videos = True
    attention = "masked"
    longest_text = 1019
    lora_targets = {  # noqa: RUF012
        "attention": JOINT_ATTENTION,
        "all": (*JOINT_ATTENTION, *MLP),
    }

    def predict(self, x: Tensor, timestep: Tensor, conditioning: Conditioning) -> Tensor:
        from diffusers import QwenImagePipeline as Pipeline

        batch, channels, height, width = x.shape
        pictures = [x, conditioning[CONTROL]] if CONTROL in conditioning else [x]
        tokens = [Pipeline._pack_latents(each, batch, channels, *each.shape[-2:]) for each in pictures]
        output = self.network(
            torch.cat(tokens, dim=1),
            timestep=timestep / 1000,
            encoder_hidden_states=conditioning["text"],
            encoder_hidden_states_mask=conditioning["mask"],
            img_shapes=[[(1, each.shape[-2] // 2, each.shape[-1] // 2) for each in pictures]] * batch,
        ).sample[:, : tokens[0].shape[1]]
        return Pipeline._unpack_latents(output, height, width, vae_scale_factor=1)[:, :, 0]

    @classmethod
    def encode_text(cls, pipeline: Any, captions: list[str], negative: bool) -> Conditioning:
        text, mask = pipeline.encode_prompt(captions, device=pipeline.text_encoder.device)
        mask = text.new_ones(text.shape[:2]) if mask is None else mask  # where all are of one length
        return {"text": text, "mask": mask.bool()}

    @classmethod
    def sampling_arguments(cls, positive: Conditioning, negative: Conditioning | None) -> dict[str, Any]:
        return prompt_arguments(positive, negative, prompt_embeds="text", prompt_embeds_mask="mask")
