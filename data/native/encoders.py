"""The encoders that the host holds: ComfyUI's CLIP and VAE, for every family that it loads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property

import torch
from torch import Tensor

from ...diffusion.solvers import Conditioning
from ...hosts.comfyui_model import encode_images, encode_text, fingerprint_of, into_latents
from ...models.families.pretrained import Control
from ...models.hosted import HostedModel
from ...models.loading.pretrained import Pretrained
from ...models.ragged import collate
from ..encodings.cache import key_of
from ..encodings.encoders import EncodeImages, Encoders, EncodeText, PretrainedEncoders
from ..reading.buckets import Size

FORMAT = 1
"""What the results below consist of, by number; part of their keys in the cache."""


class HostedEncoders:
    """CLIP and VAE of a HostedModel. The host says what is in memory."""

    classes = 0
    control: Control = "none"
    sees_control = False

    def __init__(self, hosted: HostedModel) -> None:
        """Raises ValueError for a model that is none of images."""
        self.hosted, facts = hosted, hosted.facts
        self.family, self.channels, self.factor = hosted.family, facts.channels, facts.factor
        self.multiple = 2 * facts.factor

    @cached_property
    def text_identity(self) -> str:
        return key_of(FORMAT, self.family, fingerprint_of(self.clip))

    @cached_property
    def image_identity(self) -> str:
        return key_of(FORMAT, self.family, fingerprint_of(self.vae))

    @property
    def clip(self) -> object:
        if self.hosted.clip is None:
            raise ValueError("pipeline: wire a CLIP into Train ComfyUI Model, to encode captions")
        return self.hosted.clip

    @property
    def vae(self) -> object:
        if self.hosted.vae is None:
            raise ValueError("pipeline: wire a VAE into Train ComfyUI Model, to encode images")
        return self.hosted.vae

    @contextmanager
    def text(self, device: str) -> Iterator[EncodeText]:
        clip = self.clip

        def encode(captions: list[str], negative: bool = False) -> Conditioning:
            return collate([encode_text(clip, caption) for caption in captions])

        yield encode

    def longer_than_read(self, captions: Sequence[str]) -> tuple[list[str], int]:
        return [], 0  # ComfyUI reads any length, window by window

    @contextmanager
    def images(self, device: str) -> Iterator[EncodeImages]:
        vae = self.vae

        def encode(images: Tensor) -> Tensor:
            with torch.no_grad():
                encoded = encode_images(vae, images)
            if encoded.shape[1] != self.channels:
                raise ValueError(
                    f"vae: it gives latents of {encoded.shape[1]} channels, and {self.hosted.facts.family} takes "
                    f"{self.channels}; wire the model's own VAE into Train ComfyUI Model"
                )
            return into_latents(self.hosted.model, encoded)

        yield encode

    def describe_size(self, original: Size, corner: tuple[int, int], size: Size) -> Conditioning:
        """What SDXL reads: ComfyUI's names of the same numbers. Others do not look at it."""
        if self.hosted.facts.family != "SDXL":
            return {}
        told = dict(zip(("height", "width"), original, strict=True))
        told |= dict(zip(("crop_h", "crop_w"), corner, strict=True))
        told |= dict(zip(("target_height", "target_width"), size, strict=True))
        return {f"number.{name}": torch.tensor([value], dtype=torch.float64) for name, value in told.items()}


def encoders_of(pipeline: Pretrained | HostedModel) -> Encoders:
    """The encoders on a pipeline's wire."""
    if isinstance(pipeline, HostedModel):
        return HostedEncoders(pipeline)
    return PretrainedEncoders(pipeline)
