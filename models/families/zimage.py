"""Z-Image: a single-stream transformer that reads Qwen3; its time runs from noise (0) to the image (1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ...diffusion.schedules import FlowMatching, Schedule
from ...diffusion.solvers import Conditioning
from ..ragged import padded_texts, texts_of
from .pretrained import PretrainedModel, prompt_arguments

ATTENTION = ("attention.to_q", "attention.to_k", "attention.to_v", "attention.to_out.0")


class ZImage(PretrainedModel):
    title = "Z-Image"
    pipeline_class = "ZImagePipeline"
    network_class = "ZImageTransformer2DModel"
    text_parts = ("tokenizer", "text_encoder")
    attention = "masked"
    single_file_types = ("z-image-turbo",)
    bases = ("Tongyi-MAI/Z-Image", "Tongyi-MAI/Z-Image-Turbo")
    guided_above = 0.0
    longest_text = 504
    lora_targets = {  # noqa: RUF012
        "attention": ATTENTION,
        "all": (*ATTENTION, "feed_forward.w1", "feed_forward.w2", "feed_forward.w3"),
    }

    @classmethod
    def few_steps(cls, schedule: Schedule, index: Mapping[str, Any], network: Mapping[str, Any]) -> bool:
        """Turbo has the base's settings, but for the shift: 3 in place of 6."""
        return isinstance(schedule, FlowMatching) and schedule.shift < 6

    def predict(self, x: Tensor, timestep: Tensor, conditioning: Conditioning) -> Tensor:
        output = self.network(list(x.unsqueeze(2)), 1 - timestep / 1000, texts_of(conditioning)).sample
        return -torch.stack(output).squeeze(2)

    @classmethod
    def encode_text(cls, pipeline: Any, captions: list[str], negative: bool) -> Conditioning:
        texts, _ = pipeline.encode_prompt(
            captions, device=pipeline.text_encoder.device, do_classifier_free_guidance=False
        )
        return padded_texts(texts)

    @classmethod
    def sampling_arguments(cls, positive: Conditioning, negative: Conditioning | None) -> dict[str, Any]:
        return prompt_arguments(positive, negative, prompt_embeds=texts_of)
