"""Qwen-Image 2.1: text and latents in one row, each seeing what is before it; Qwen3-VL, a VAE of videos with alpha."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ...diffusion.schedules import FlowMatching, Schedule
from ...diffusion.solvers import Conditioning
from .pretrained import PretrainedModel, prompt_arguments

ATTENTION = ("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0")


class QwenImage21(PretrainedModel):
    title = "Qwen-Image 2.1"
    pipeline_class = "QwenImage21Pipeline"
    since = "0.41"
    network_class = "QwenImage21Transformer2DModel"
    text_parts = ("processor", "text_encoder")
    reading_tokenizer = "processor"
    single_file_types = ("qwen-image-2.1",)
    original_mark = ".img_mlp.gate_up."
    bases = ("Qwen/Qwen-Image-2.1", "Qwen/Qwen-Image-2.1-Turbo")
    unread = ("lm_head.", "model.visual.")
    vae_of_videos = True
    longest_text = 100_000  # nothing is cut off
    lora_targets = {  # noqa: RUF012
        "attention": ATTENTION,
        "all": (*ATTENTION, "img_mlp.proj", "img_mlp.gate_layer", "img_mlp.out"),
    }

    @classmethod
    def pipeline(cls) -> Any:
        return encoded_pipeline()

    @classmethod
    def own_parts(cls, home: Path) -> dict[str, Callable[[], Any]]:
        return {"processor": lambda: Reader(home / "processor")}

    @classmethod
    def schedule(cls, schedule: Schedule, index: Mapping[str, Any]) -> Schedule:
        """Its pipeline counts latents, each of which is a token, where :meth:`Schedule.at_size` counts four as one."""
        assert isinstance(schedule, FlowMatching)
        return replace(schedule, base_tokens=schedule.base_tokens // 4, max_tokens=schedule.max_tokens // 4)

    @classmethod
    def few_steps(cls, schedule: Schedule, index: Mapping[str, Any], network: Mapping[str, Any]) -> bool:
        """Turbo comes with the levels of its eight steps."""
        return bool(index.get("sample_sigmas"))

    def predict(self, x: Tensor, timestep: Tensor, conditioning: Conditioning) -> Tensor:
        """The row has a place for every word, then one for every four latents."""
        text, mask, (height, width) = conditioning["text"], conditioning["mask"], x.shape[-2:]
        words, pixels = text.shape[1], height * width
        pictured = torch.arange(words + pixels // 4, device=x.device) >= words
        output = self.network(
            x.flatten(2).transpose(1, 2),
            encoder_hidden_states=text,
            encoder_hidden_states_mask=mask,
            timestep=timestep / 1000,
            img_shapes=[[(1, height, width)]] * len(x),
            img_mask=pictured.expand(len(x), -1),
        ).sample
        return output[:, -pixels:].transpose(1, 2).unflatten(2, (height, width))

    @classmethod
    def encode_text(cls, pipeline: Any, captions: list[str], negative: bool) -> Conditioning:
        text, mask, _ = pipeline.encode_prompt(captions, device=pipeline.text_encoder.device)
        mask = text.new_ones(text.shape[:2]) if mask is None else mask  # where all are of one length
        return {"text": text, "mask": mask.bool()}

    @classmethod
    def encode_images(cls, vae: Any, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Its VAE knows how opaque a pixel is, too: wholly."""
        return super().encode_images(vae, F.pad(images, (0, 0, 0, 0, 0, 1), value=1.0), generator)

    @classmethod
    def decode_latents(cls, vae: Any, latents: Tensor) -> Tensor:
        return super().decode_latents(vae, latents)[:, :3]

    @classmethod
    def sampling_arguments(cls, positive: Conditioning, negative: Conditioning | None) -> dict[str, Any]:
        return prompt_arguments(positive, negative, prompt_embeds="text", prompt_embeds_mask="mask")


@cache
def encoded_pipeline() -> Any:
    """Its pipeline, taking captions that were encoded before, guidance by its usual name, and any number of steps."""
    import diffusers

    plain: Any = diffusers.QwenImage21Pipeline

    class EncodedQwenImage21Pipeline(plain):  # type: ignore[misc]
        def register_modules(self, **parts: Any) -> None:
            """What reads is asked by the constructor, and comes later, or not at all: it is asked again then."""
            if "processor" in parts and parts["processor"] is None:
                parts["processor"] = Silent()
            super().register_modules(**parts)
            if isinstance(reader := parts.get("processor"), Reader):
                said = [{"role": "system", "content": [{"type": "text", "text": self.sys_prompt}]}]
                self._drop_idx = len(reader.apply_chat_template(said, tokenize=True, return_dict=False)[0])
                self._img_token_id = reader.tokenizer.encode("<|image_pad|>")[0]

        def __call__(
            self,
            prompt: Any = None,
            negative_prompt: Any = None,
            height: int = 1024,
            width: int = 1024,
            num_inference_steps: int = 40,
            guidance_scale: float = 1.0,
            **more: Any,
        ) -> Any:
            """The levels that came with the model are those of as many steps, not of others."""
            steps, own = num_inference_steps, self.config.sample_sigmas or ()
            return super().__call__(
                prompt,
                negative_prompt=negative_prompt,
                height=height,
                width=width,
                sigmas=own if len(own) == steps else np.linspace(1.0, 1 / steps, steps),
                true_cfg_scale=guidance_scale,
                **more,
            )

    return EncodedQwenImage21Pipeline


class Reader:
    """Texts as Qwen3-VL reads them: transformers' own processor, less its parts for pictures and videos.

    These need torchvision, which nothing else here does.
    """

    def __init__(self, folder: Path) -> None:
        from transformers import AutoTokenizer

        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)

    def __call__(self, text: list[str], **options: Any) -> Any:
        return self.tokenizer(text, **options)

    def apply_chat_template(self, said: list[dict[str, Any]], **options: Any) -> list[list[int]]:
        return [self.tokenizer.apply_chat_template(said, **options)]


class Silent:
    """Stands where what reads would, and knows no words."""

    def __init__(self) -> None:
        self.tokenizer = self

    def encode(self, text: str) -> list[int]:
        return [0]

    def apply_chat_template(self, said: list[dict[str, Any]], **options: Any) -> list[list[int]]:
        return [[]]
