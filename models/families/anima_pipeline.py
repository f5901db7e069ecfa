"""Anima's modular pipeline as a plain one, and what diffusers' Cosmos lacks where torchvision is not installed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from types import SimpleNamespace
from typing import Any

from torch.nn import functional as F

from .modular_pipeline import PlainPipeline


@cache
def anima_pipeline() -> Any:
    """The class."""
    import diffusers
    from diffusers.loaders import AnimaLoraLoaderMixin
    from diffusers.modular_pipelines.anima import before_denoise, denoise, modular_blocks_anima

    plain: Any = diffusers.DiffusionPipeline
    after_text = {
        "input": before_denoise.AnimaTextInputStep,
        "prepare_latents": before_denoise.AnimaPrepareLatentsStep,
        "set_timesteps": before_denoise.AnimaSetTimestepsStep,
        "denoise": denoise.AnimaDenoiseStep,
        "decode": modular_blocks_anima.AnimaDecodeStep,
    }

    class AnimaPipeline(PlainPipeline, plain, AnimaLoraLoaderMixin):  # type: ignore[misc]
        modular_class = "AnimaModularPipeline"

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

        def blocks(self, encoded: bool, shown: bool) -> Mapping[str, Any] | None:
            return after_text if encoded else None

        def running(self) -> AbstractContextManager[None]:
            return resizing()

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
