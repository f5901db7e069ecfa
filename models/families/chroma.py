"""Chroma: FLUX.1 without CLIP and without embedded guidance, so that it is guided by a negative prompt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ...diffusion.schedules import Schedule
from ...diffusion.solvers import Conditioning
from .flux import Flux
from .pretrained import Attention, prompt_arguments


class Chroma(Flux):
    title = "Chroma"
    pipeline_class = "ChromaPipeline"
    attention: Attention = "masked"
    network_class = "ChromaTransformer2DModel"
    text_parts: tuple[str, ...] = ("tokenizer", "text_encoder")
    single_file_types: tuple[str, ...] = ("chroma",)
    negative_prompts = True

    @classmethod
    def few_steps(cls, schedule: Schedule, index: Mapping[str, Any], network: Mapping[str, Any]) -> bool:
        return False  # Flash has the settings of all others

    def predict(self, x: Tensor, timestep: Tensor, conditioning: Conditioning) -> Tensor:
        from diffusers import ChromaPipeline as Pipeline

        batch, channels, height, width = x.shape
        text, mask = conditioning["text"], conditioning["mask"]
        mask = torch.cat([mask, mask.new_ones(batch, height * width // 4)], dim=1)
        with masked_checkpoints(self.network, mask):
            output = self.network(
                Pipeline._pack_latents(x, batch, channels, height, width),
                timestep=timestep / 1000,
                encoder_hidden_states=text,
                txt_ids=text.new_zeros(text.shape[1], 3),
                img_ids=self.places(height, width, x),
                attention_mask=mask,
            ).sample
        return Pipeline._unpack_latents(output, height, width, vae_scale_factor=1)

    @classmethod
    def encode_text(cls, pipeline: Any, captions: list[str], negative: bool) -> Conditioning:
        """The mask stays a number for each token, 1 or 0, which diffusers adds to the attention's logits."""
        text, _, mask, *_ = pipeline.encode_prompt(
            captions, device=pipeline.text_encoder.device, do_classifier_free_guidance=False
        )
        return {"text": text, "mask": mask}

    @classmethod
    def sampling_arguments(cls, positive: Conditioning, negative: Conditioning | None) -> dict[str, Any]:
        return prompt_arguments(positive, negative, prompt_embeds="text", prompt_attention_mask="mask")


@contextmanager
def masked_checkpoints(network: Any, mask: Tensor) -> Iterator[None]:
    """Gradient checkpointing gives the mask to the single blocks too: diffusers 0.42 leaves it out there."""
    if not network.gradient_checkpointing:
        yield
        return
    plain, blocks = network._gradient_checkpointing_func, set(network.single_transformer_blocks)

    def checkpoint(block: nn.Module, *inputs: Any) -> Any:
        forgotten = block in blocks and len(inputs) == 3
        return plain(block, *inputs, *([mask] if forgotten else []))

    network._gradient_checkpointing_func = checkpoint
    try:
        yield
    finally:
        network._gradient_checkpointing_func = plain
