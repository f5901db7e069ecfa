"""ERNIE-Image: text and image in one row, Ministral 3, FLUX.2's VAE with patches as channels."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...diffusion.solvers import Conditioning
from ..ragged import padded_texts, texts_of
from .flux2 import in_patches, out_of_patches
from .pretrained import PretrainedModel, prompt_arguments
from .vae import Moments, moments_of_patches

ATTENTION = tuple(f"self_attention.{name}" for name in ("to_q", "to_k", "to_v", "to_out.0"))

EPSILON = 1e-5
"""Of the VAE's normalisation, as its pipeline has it: what its settings say is not what it was trained with."""


class ErnieImage(PretrainedModel):
    title = "ERNIE-Image"
    pipeline_class = "ErnieImagePipeline"
    since = "0.38"
    network_class = "ErnieImageTransformer2DModel"
    packed = 4
    text_parts = ("tokenizer", "text_encoder")
    single_file_types = ("ernie_image",)
    attention = "masked"
    bases = ("baidu/ERNIE-Image", "baidu/ERNIE-Image-Turbo")
    longest_text = 100_000  # its tokenizer's settings say more
    lora_targets = {  # noqa: RUF012
        "attention": ATTENTION,
        "all": (*ATTENTION, "mlp.gate_proj", "mlp.up_proj", "mlp.linear_fc2"),
    }

    @classmethod
    def most_tokens(cls, pipeline: Any) -> int:
        return int(pipeline.tokenizer.model_max_length)

    def predict(self, x: Tensor, timestep: Tensor, conditioning: Conditioning) -> Tensor:
        output = self.network(
            in_patches(x),
            timestep=timestep.to(x.dtype),  # as its pipeline rounds it
            text_bth=conditioning["text"],
            text_lens=conditioning["mask"].sum(1),
        ).sample
        return out_of_patches(output)

    @classmethod
    def encode_text(cls, pipeline: Any, captions: list[str], negative: bool) -> Conditioning:
        return padded_texts(pipeline.encode_prompt(captions, pipeline.text_encoder.device))

    @classmethod
    def sampling_arguments(cls, positive: Conditioning, negative: Conditioning | None) -> dict[str, Any]:
        return prompt_arguments(positive, negative, prompt_embeds=texts_of)

    @classmethod
    def moments(cls, vae: Any, latents: Tensor) -> Moments:
        return moments_of_patches(vae, latents, out_of_patches, EPSILON)
