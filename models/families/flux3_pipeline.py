"""FLUX.3's modular pipeline as a plain one, without what writes prompts anew."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from .modular_pipeline import PlainPipeline


@cache
def flux3_pipeline() -> Any:
    """The class."""
    import diffusers
    from diffusers.loaders import Flux3LoraLoaderMixin
    from diffusers.modular_pipelines.flux3 import decoders, encoders
    from diffusers.modular_pipelines.flux3 import modular_blocks_flux3 as its

    plain: Any = diffusers.DiffusionPipeline
    text = {"text_encoder": encoders.Flux3TextEncoderStep}
    picture = {"vae_encoder": its.Flux3VaeEncoderSequentialStep, "denoise": its.Flux3ImageConditionedCoreDenoiseStep}

    class Flux3Pipeline(PlainPipeline, plain, Flux3LoraLoaderMixin):  # type: ignore[misc]
        modular_class = "Flux3ModularPipeline"

        def __init__(self, text_encoder: Any, tokenizer: Any, transformer: Any, vae: Any) -> None:
            super().__init__()
            self.register_modules(text_encoder=text_encoder, tokenizer=tokenizer, transformer=transformer, vae=vae)
            self.scheduler = diffusers.FlowMatchEulerDiscreteScheduler(**scheduler_settings())

        def blocks(self, encoded: bool, shown: bool) -> Mapping[str, Any] | None:
            drawing = picture if shown else {"denoise": its.Flux3CoreDenoiseStep}
            return {**({} if encoded else text), **drawing, "decode": decoders.Flux3DecodeStep}

        def parts(self) -> dict[str, Any]:
            parts = super().parts()
            return {**parts, "tokenizer": parts["tokenizer"] and TextProcessor(parts["tokenizer"])}

    return Flux3Pipeline


def scheduler_settings() -> dict[str, Any]:
    """Those of its scheduler, which are in the pipeline's code: its folder has none."""
    from diffusers.modular_pipelines.flux3.before_denoise import Flux3SetTimestepsStep

    return {"shift": Flux3SetTimestepsStep().shift}


class TextProcessor:
    """What its steps ask a processor of text and pictures, of the tokenizer alone: the rest needs torchvision."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer, self.apply_chat_template = tokenizer, tokenizer.apply_chat_template
