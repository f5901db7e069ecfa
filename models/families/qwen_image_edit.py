"""Qwen-Image-Edit: Qwen-Image that is shown a picture to change, as latents and through its text encoder's eyes."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...diffusion.solvers import Conditioning
from ..ragged import join
from .qwen_image import QwenImage

if TYPE_CHECKING:
    from PIL.Image import Image


class QwenImageEdit(QwenImage):
    title = "Qwen-Image-Edit"
    pipeline_class = "QwenImageEditPipeline"
    pipeline_module = "diffusers.pipelines.qwenimage.pipeline_qwenimage_edit"
    text_parts = ("tokenizer", "text_encoder", "processor")
    longest_text = 100_000  # nothing is cut off
    control = "must"
    sees_control = True

    @classmethod
    def encode_pairs(cls, pipeline: Any, captions: list[str], pictures: list[Image]) -> Conditioning:
        return join([cls.encode_pair(pipeline, *pair) for pair in zip(captions, pictures, strict=True)])

    @classmethod
    def encode_pair(cls, pipeline: Any, caption: str, picture: Image) -> Conditioning:
        """One caption beside its picture, which is made as large for the text encoder as the pipeline makes it."""
        width, height, *_ = import_module(cls.pipeline_module).calculate_dimensions(
            cls.seen_pixels(), picture.width / picture.height
        )
        seen = pipeline.image_processor.resize(picture, height, width)
        text, mask = pipeline.encode_prompt([caption], image=[seen], device=pipeline.text_encoder.device)
        return {"text": text, "mask": text.new_ones(text.shape[:2]).bool() if mask is None else mask.bool()}

    @classmethod
    def seen_pixels(cls) -> int:
        """How many pixels the text encoder sees."""
        return 1024 * 1024

    @classmethod
    def own_parts(cls, home: Path) -> dict[str, Callable[[], Any]]:
        return {"processor": lambda: Processor(home / "processor")}


class QwenImageEditPlus(QwenImageEdit):
    """Of September 2025 and later; several pictures are not asked for here."""

    title = "Qwen-Image-Edit 2509, 2511"
    pipeline_class = "QwenImageEditPlusPipeline"
    pipeline_module = "diffusers.pipelines.qwenimage.pipeline_qwenimage_edit_plus"

    @classmethod
    def seen_pixels(cls) -> int:
        pixels: int = import_module(cls.pipeline_module).CONDITION_IMAGE_SIZE
        return pixels


class Processor:
    """Texts and pictures as Qwen2.5-VL reads them: transformers' own processor, less its part for videos.

    That part needs torchvision, which nothing else here does: pictures are read by Pillow, alike wherever it runs.
    """

    PLACE = "<|image_pad|>"

    def __init__(self, folder: Path) -> None:
        from transformers import AutoImageProcessor, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.pictures = AutoImageProcessor.from_pretrained(folder, backend="pil")

    def __call__(self, text: list[str], images: list[Image], padding: bool, return_tensors: str) -> Any:
        """Each place of a picture in the texts becomes as many tokens as the picture has."""
        from transformers import BatchFeature

        seen = self.pictures(images=images, return_tensors=return_tensors)
        counts = iter((seen["image_grid_thw"].prod(1) // self.pictures.merge_size**2).tolist())
        long = [re.sub(re.escape(self.PLACE), lambda _: self.PLACE * next(counts), line) for line in text]
        return BatchFeature({**self.tokenizer(long, padding=padding, return_tensors=return_tensors), **seen})
