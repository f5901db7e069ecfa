"""Anima's modular pipeline as a plain one: the same parts, of which some may be absent, and encoded captions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..loading.index import MODULAR_INDEX, read_index


@cache
def anima_pipeline() -> Any:
    """The class. diffusers has its steps, and nothing that runs them around a network of somebody else's."""
    import diffusers
    from diffusers.loaders import AnimaLoraLoaderMixin
    from diffusers.modular_pipelines.anima import before_denoise, denoise, modular_blocks_anima
    from diffusers.modular_pipelines.modular_pipeline import SequentialPipelineBlocks

    plain: Any = diffusers.DiffusionPipeline
    after_text = {
        "input": before_denoise.AnimaTextInputStep,
        "prepare_latents": before_denoise.AnimaPrepareLatentsStep,
        "set_timesteps": before_denoise.AnimaSetTimestepsStep,
        "denoise": denoise.AnimaDenoiseStep,
        "decode": modular_blocks_anima.AnimaDecodeStep,
    }

    class AnimaPipeline(plain, AnimaLoraLoaderMixin):  # type: ignore[misc]
        config_name = MODULAR_INDEX
        _progress_bar_config: dict[str, Any]

        def __init__(
            self,
            text_encoder: Any,
            tokenizer: Any,
            t5_tokenizer: Any,
            text_conditioner: Any,
            transformer: Any,
            vae: Any,
            scheduler: Any,
        ) -> None:
            super().__init__()
            parts = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
            self.register_modules(**parts)

        @classmethod
        def load_config(cls, folder: str, **_: Any) -> dict[str, Any]:
            return read_index(Path(folder))

        @torch.no_grad()
        def __call__(
            self,
            prompt: str | list[str] | None = None,
            negative_prompt: str | None = None,
            prompt_embeds: Tensor | None = None,
            negative_prompt_embeds: Tensor | None = None,
            height: int = 1024,
            width: int = 1024,
            num_inference_steps: int = 50,
            guidance_scale: float = 4.0,
            generator: torch.Generator | None = None,
            output_type: str = "pil",
        ) -> Any:
            """Images of captions in words, or of those that ``sampling_arguments`` of the family gives."""
            words = {"prompt": prompt, "negative_prompt": negative_prompt}
            encoded = {"prompt_embeds": prompt_embeds, "negative_prompt_embeds": negative_prompt_embeds}
            blocks = SequentialPipelineBlocks.from_blocks_dict(after_text) if prompt is None else None
            steps: Any = diffusers.AnimaModularPipeline(blocks)
            guider = diffusers.ClassifierFreeGuidance(guidance_scale=guidance_scale)
            there = {name: part for name, part in self.components.items() if part is not None}
            steps.update_components(
                **{name: part for name, part in there.items() if hasattr(steps, name)}, guider=guider
            )
            steps.set_progress_bar_config(**getattr(self, "_progress_bar_config", {}))
            given = encoded if prompt is None else words
            with resizing():
                images = steps(
                    **{name: value for name, value in given.items() if value is not None},
                    height=height,
                    width=width,
                    num_inference_steps=num_inference_steps,
                    generator=generator,
                    output_type=output_type,
                    output="images",
                )
            return SimpleNamespace(images=images)

    return AnimaPipeline


@contextmanager
def resizing() -> Iterator[None]:
    """Inside, diffusers' Cosmos does without torchvision, of which it asks to enlarge a mask, and nothing else here."""
    from diffusers.models.transformers import transformer_cosmos

    if hasattr(transformer_cosmos, "transforms"):
        yield
        return
    resize = SimpleNamespace(resize=lambda mask, size, interpolation: F.interpolate(mask, size, mode=interpolation))
    modes = SimpleNamespace(NEAREST="nearest")
    transformer_cosmos.transforms = SimpleNamespace(functional=resize, InterpolationMode=modes)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        del transformer_cosmos.transforms  # type: ignore[attr-defined]
