"""LongCat-Image: FLUX.1's blocks without CLIP and embedded guidance; Qwen2.5-VL, quoted words letter by letter."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ...diffusion.solvers import Conditioning
from .flux import Flux
from .pretrained import PretrainedModel, prompt_arguments


class LongCatImage(PretrainedModel):
    title = "LongCat-Image"
    pipeline_class = "LongCatImagePipeline"
    network_class = "LongCatImageTransformer2DModel"
    packed = 4
    text_parts = ("tokenizer", "text_encoder")
    attention = "any"
    single_file_types = ("longcat_image",)
    bases = ("meituan-longcat/LongCat-Image",)
    longest_text = 512
    lora_targets = Flux.lora_targets

    @classmethod
    def pipeline(cls) -> Any:
        return encoded_pipeline()

    def predict(self, x: Tensor, timestep: Tensor, conditioning: Conditioning) -> Tensor:
        from diffusers import LongCatImagePipeline as Pipeline

        text = conditioning["text"]
        rows, columns, words = (
            torch.arange(side, device=x.device) for side in (x.shape[-2] // 2, x.shape[-1] // 2, text.shape[1])
        )
        picture = torch.cartesian_prod(torch.ones_like(rows[:1]), rows + self.longest_text, columns + self.longest_text)
        output = self.network(
            Pipeline._pack_latents(x, *x.shape),
            timestep=timestep / 1000,
            encoder_hidden_states=text,
            txt_ids=torch.stack([torch.zeros_like(words), words, words], dim=1),
            img_ids=picture,
        ).sample
        return Pipeline._unpack_latents(output, *x.shape[-2:], vae_scale_factor=1)

    @classmethod
    def encode_text(cls, pipeline: Any, captions: list[str], negative: bool) -> Conditioning:
        """Padded to 512 tokens, all of which the network sees: 3.7 MB a caption."""
        text, _ = pipeline.encode_prompt(captions)
        return {"text": text}

    @classmethod
    def sampling_arguments(cls, positive: Conditioning, negative: Conditioning | None) -> dict[str, Any]:
        """As they are: its pipeline would have its text encoder write captions anew, which is not there any more."""
        return {**prompt_arguments(positive, negative, prompt_embeds="text"), "enable_prompt_rewrite": False}

    @classmethod
    def from_original(cls, checkpoint: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """As diffusers converts FLUX.1, without what reads CLIP there."""
        from diffusers.loaders.single_file_utils import convert_flux_transformer_checkpoint_to_diffusers as convert

        absent = [f"vector_in.{layer}.{kind}" for layer in ("in_layer", "out_layer") for kind in ("weight", "bias")]
        found: dict[str, Tensor] = convert({**checkpoint, **dict.fromkeys(absent, torch.empty(0))})
        clip = "time_text_embed.text_embedder."
        return {name.replace("time_text_", "time_"): found[name] for name in found if not name.startswith(clip)}


@cache
def encoded_pipeline() -> Any:
    """Its pipeline, which asks for a prompt's length even where it is given one that is encoded."""
    import diffusers

    plain: Any = diffusers.LongCatImagePipeline

    class EncodedLongCatImagePipeline(plain):  # type: ignore[misc]
        def encode_prompt(self, prompt: Any = None, num_images_per_prompt: int = 1, prompt_embeds: Any = None) -> Any:
            words = prompt if prompt_embeds is None else [""] * len(prompt_embeds)
            return super().encode_prompt(words, num_images_per_prompt, prompt_embeds)

    return EncodedLongCatImagePipeline
