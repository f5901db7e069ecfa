"""Krea 2: a single-stream transformer that reads many layers of Qwen3-VL at once; its VAE is Qwen-Image's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from ...diffusion.schedules import FlowMatching, Schedule
from ...diffusion.solvers import Conditioning, rows
from ..ragged import join, padded_texts
from .qwen_image import QwenImage

ATTENTION = ("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_gate", "attn.to_out.0")

TURBO_SHIFT = 1.15
"""The logarithm of the shift that Turbo was distilled with."""


class Krea2(QwenImage):
    title = "Krea 2"
    pipeline_class = "Krea2Pipeline"
    network_class = "Krea2Transformer2DModel"
    since = "0.39"
    single_file_types = ("krea2",)
    guided_above = 0.0
    longest_text = 507
    lora_targets = {  # noqa: RUF012
        "attention": ATTENTION,
        "all": (*ATTENTION, "ff.gate", "ff.up", "ff.down"),
    }

    @classmethod
    def schedule(cls, schedule: Schedule, index: Mapping[str, Any]) -> Schedule:
        """Turbo's shift is the same for all sizes: its pipeline does not ask the scheduler's settings."""
        if not isinstance(schedule, FlowMatching) or not index.get("is_distilled"):
            return schedule
        return replace(schedule, base_shift=TURBO_SHIFT, max_shift=TURBO_SHIFT)

    def predict(self, x: Tensor, timestep: Tensor, conditioning: Conditioning) -> Tensor:
        from diffusers import Krea2Pipeline, QwenImagePipeline

        batch, channels, height, width = x.shape
        text = conditioning["text"]
        output = self.network(
            QwenImagePipeline._pack_latents(x, batch, channels, height, width),
            encoder_hidden_states=text,
            timestep=timestep / 1000,
            position_ids=Krea2Pipeline.prepare_position_ids(text.shape[1], height // 2, width // 2, x.device),
            encoder_attention_mask=conditioning["mask"],
        ).sample
        return QwenImagePipeline._unpack_latents(output, height, width, vae_scale_factor=1)[:, :, 0]

    @classmethod
    def encode_text(cls, pipeline: Any, captions: list[str], negative: bool) -> Conditioning:
        """Without the pipeline's padding, which no token sees and which would take 31 MB a caption."""
        texts, masks = pipeline.encode_prompt(captions, device=pipeline.text_encoder.device)
        return padded_texts([text[mask] for text, mask in zip(texts, masks, strict=True)])

    @classmethod
    def sampling_arguments(cls, positive: Conditioning, negative: Conditioning | None) -> dict[str, Any]:
        if not negative:
            return super().sampling_arguments(positive, None)
        both = join([positive, negative])  # its pipeline has the same places for both
        count = len(positive["mask"])
        first, second = rows(both, slice(count)), rows(both, slice(count, None))
        return super().sampling_arguments(first, second)
