"""Wan 2.1, and Wan 2.2 of 5 B: a transformer of videos that reads UMT5, on films of a single image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ...diffusion.schedules import Schedule
from ...diffusion.solvers import Conditioning, padded_to
from ..ragged import padded_texts
from .pretrained import PretrainedModel, prompt_arguments

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")


class Wan(PretrainedModel):
    title = "Wan 2.1, 2.2 5B"
    pipeline_class = "WanPipeline"
    network_class = "WanTransformer3DModel"
    text_parts = ("tokenizer", "text_encoder")
    attention = "any"
    single_file_types = ("wan-t2v-1.3B", "wan-t2v-14B")
    vae_of_videos = True
    longest_text = 512
    lora_targets = {  # noqa: RUF012
        "attention": ATTENTION,
        "all": (*ATTENTION, "ffn.net.0.proj", "ffn.net.2"),
    }

    @classmethod
    def schedule(cls, schedule: Schedule, index: Mapping[str, Any]) -> Schedule:
        """Raises ValueError for Wan 2.2 of 14 B, of whose two networks each knows half of the noise levels."""
        if (index.get("transformer_2") or [None])[0]:
            raise ValueError(
                "Wan 2.2 A14B has a network for high and one for low noise: choose Wan 2.1, or 2.2 TI2V 5B"
            )
        return schedule

    def predict(self, x: Tensor, timestep: Tensor, conditioning: Conditioning) -> Tensor:
        text = padded_to(conditioning["text"], self.longest_text)
        film: Tensor = self.network(x.unsqueeze(2), timestep=timestep, encoder_hidden_states=text).sample
        return film.squeeze(2)

    @classmethod
    def encode_text(cls, pipeline: Any, captions: list[str], negative: bool) -> Conditioning:
        """Without the zeros behind a caption, which the network sees, and which would take 4 MB a caption."""
        texts, _ = pipeline.encode_prompt(
            captions,
            do_classifier_free_guidance=False,
            max_sequence_length=cls.longest_text,
            device=pipeline.text_encoder.device,
        )
        return padded_texts([text[text.any(dim=1)] for text in texts])

    @classmethod
    def sampling_arguments(cls, positive: Conditioning, negative: Conditioning | None) -> dict[str, Any]:
        texts = prompt_arguments(
            positive, negative, prompt_embeds=lambda told: padded_to(told["text"], cls.longest_text)
        )
        return {**texts, "num_frames": 1}
