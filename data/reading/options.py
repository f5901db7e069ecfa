"""How pictures are used as a data set: what a folder and shards have in common, and what a folder has more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Literal

import torch
from torch import Generator, Tensor

from .buckets import MOST_OBLONG, Size, bucket_for, bucket_sizes
from .cropping import Crop, Place, fit, place_of, to_latents
from .pictures import read_image

ALPHA: Literal["alpha"] = "alpha"
"""In place of a mask folder: each image's own transparency is its mask."""

Masks = Path | Literal["alpha"] | None


@dataclass(frozen=True)
class ImageOptions:
    """How pictures are cut, mirrored and counted."""

    size: int = 64
    repeats: int = 1
    """How often each comes in an epoch."""
    crop: Crop = "center"
    flip: bool = False
    """Whether half of them are mirrored."""
    color: Literal["RGB", "L"] = "RGB"
    background: str = "white"
    """What shows through transparency."""
    buckets: bool = False
    """Whether they stay oblong, with about as many pixels as a square of ``size``."""
    upscale: bool = True
    """Whether buckets may be larger than the picture."""
    default_caption: str = ""
    """Of pictures that have none."""
    loss_weight: float = 1.0
    max_aspect_ratio: float = MOST_OBLONG

    @property
    def enlarges(self) -> bool:
        """Whether small pictures are enlarged: without buckets all have one size."""
        return self.upscale or not self.buckets

    def sizes(self, size: int) -> list[Size]:
        """To which pictures may be cut, for a square of ``size``."""
        return bucket_sizes(size, self.max_aspect_ratio) if self.buckets else [(size, size)]

    def bucket(self, picture: Size, sizes: list[Size]) -> Size:
        """To which of the sizes this one is cut."""
        return bucket_for(picture, sizes, self.enlarges, self.max_aspect_ratio)

    def pixels(self, path: Path, bucket: Size, place: Place, opened: BytesIO | None = None) -> Tensor:
        """The picture (C, H, W) in -1..1, resized and cut to its bucket; see :func:`read_image`."""
        return to_latents(fit(read_image(path, self.color, self.background, opened), bucket, place))

    def place(self, generator: Generator) -> Place:
        """Where the next one is cut."""
        return place_of(self.crop, generator)

    def mirrors(self, generator: Generator) -> bool:
        """Whether the next one is mirrored."""
        return self.flip and bool(torch.rand(1, generator=generator) < 0.5)


@dataclass(frozen=True)
class FolderOptions(ImageOptions):
    """What else is said of a folder."""

    mask_folder: Masks = None
    control: Path | None = None
    """The folder with the pictures of which the images are made."""
    kohya_folders: bool = True
    """Whether names of sub-folders such as ``10_sks dog`` are repeats and a caption."""
    validation: float = 0.0
    """The share of the images, 0..1, that is kept back as ``held_out``."""
    resolutions: Sequence[int] = ()
    """The sizes in which each image comes, where it shall come in others than ``size``."""


def weight_of(loss_weight: float, count: int) -> Tensor | None:
    """The weight (count,) of each item's loss; None where all count alike."""
    return None if loss_weight == 1 else torch.full((count,), loss_weight)
