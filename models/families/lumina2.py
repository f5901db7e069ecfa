"""Lumina Image 2.0: a transformer that reads Gemma; its time runs from noise (0) to the image (1)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...diffusion.solvers import Conditioning
from .pretrained import PretrainedModel, prompt_arguments

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")


class Lumina2(PretrainedModel):
    title = "Lumina Image 2.0"
    pipeline_class = "Lumina2Pipeline"
    network_class = "Lumina2Transformer2DModel"
    text_parts = ("tokenizer", "text_encoder")
    single_file_types = ("lumina2",)
    longest_text = 256
    lora_targets = {  # noqa: RUF012
        "attention": ATTENTION,
        "all": (*ATTENTION, "feed_forward.linear_1", "feed_forward.linear_2", "feed_forward.linear_3"),
    }

    def predict(self, x: Tensor, timestep: Tensor, conditioning: Conditioning) -> Tensor:
        return -self.network(
            x,
            timestep=1 - timestep / 1000,
            encoder_hidden_states=conditioning["text"],
            encoder_attention_mask=conditioning["mask"],
        ).sample

    @classmethod
    def encode_text(cls, pipeline: Any, captions: list[str], negative: bool) -> Conditioning:
        device = pipeline.text_encoder.device
        positive, mask, _, _ = pipeline.encode_prompt(captions, False, device=device)
        bare = [negative or not caption for caption in captions]
        if not any(bare):
            return {"text": positive, "mask": mask.bool()}
        # The pipeline puts a system prompt before a prompt, but not before a negative one; nor do we where a caption
        # is dropped, since that is how an empty negative prompt is asked for.
        _, _, text, text_mask = pipeline.encode_prompt(captions, True, captions, device=device)
        rows = torch.tensor(bare, device=device)
        return {
            "text": torch.where(rows[:, None, None], text, positive),
            "mask": torch.where(rows[:, None], text_mask, mask).bool(),
        }

    @classmethod
    def sampling_arguments(cls, positive: Conditioning, negative: Conditioning | None) -> dict[str, Any]:
        return prompt_arguments(positive, negative, prompt_embeds="text", prompt_attention_mask="mask")
