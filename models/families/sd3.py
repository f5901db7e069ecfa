"""Stable Diffusion 3 and 3.5: a transformer that reads two CLIPs and T5 (arXiv 2403.03206)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...diffusion.solvers import Conditioning
from .pretrained import PretrainedModel
from .sdxl import StableDiffusionXL

JOINT_ATTENTION = (
    "attn.to_q",
    "attn.to_k",
    "attn.to_v",
    "attn.to_out.0",
    "attn.add_q_proj",
    "attn.add_k_proj",
    "attn.add_v_proj",
    "attn.to_add_out",
)
"""The attention of images and text together; FLUX.1 calls its layers the same."""
SECOND_ATTENTION = ("attn2.to_q", "attn2.to_k", "attn2.to_v", "attn2.to_out.0")
"""The attention of images alone, in some blocks of SD 3.5 medium."""
JOINT_MLP = ("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2")


class StableDiffusion3(PretrainedModel):
    title = "Stable Diffusion 3 / 3.5"
    pipeline_class = "StableDiffusion3Pipeline"
    network_class = "SD3Transformer2DModel"
    text_parts = ("tokenizer", "text_encoder", "tokenizer_2", "text_encoder_2", "tokenizer_3", "text_encoder_3")
    single_file_types = ("sd3", "sd35_large", "sd35_medium")
    density = "logit_normal"
    longest_text = 256
    reading_tokenizer = "tokenizer_3"
    lora_targets = {  # noqa: RUF012  # a constant of the class, as in every family
        "attention": (*JOINT_ATTENTION, *SECOND_ATTENTION),
        "all": (*JOINT_ATTENTION, *SECOND_ATTENTION, *JOINT_MLP),
    }

    def predict(self, x: Tensor, timestep: Tensor, conditioning: Conditioning) -> Tensor:
        return self.network(
            x,
            timestep=timestep,
            encoder_hidden_states=conditioning["text"],
            pooled_projections=conditioning["pooled"],
        ).sample

    @classmethod
    def encode_text(cls, pipeline: Any, captions: list[str], negative: bool) -> Conditioning:
        text, _, pooled, _ = pipeline.encode_prompt(
            captions, captions, captions, device=pipeline.text_encoder.device, do_classifier_free_guidance=False
        )
        return {"text": text, "pooled": pooled}

    @classmethod
    def most_tokens(cls, pipeline: Any) -> int:
        return cls.longest_text if pipeline.tokenizer_3 else int(pipeline.tokenizer.model_max_length)

    sampling_arguments = StableDiffusionXL.sampling_arguments
