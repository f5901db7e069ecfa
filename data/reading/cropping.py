"""A picture cut to the size in which it is trained, and as latents."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Generator, Tensor

from .buckets import Size

Crop = Literal["center", "random"]

Place = tuple[float, float]
"""Where a cut lies, across and down: 0 = at the left or top, 1 = at the right or bottom."""


def place_of(crop: Crop, generator: Generator) -> Place:
    """Where to cut: in the middle, or anywhere."""
    if crop == "center":
        return 0.5, 0.5
    across, down = torch.rand(2, generator=generator).tolist()
    return across, down


def fit(picture: Image.Image, size: Size, place: Place) -> Image.Image:
    """Resize the picture until it just covers ``size``, and cut off what is over."""
    height, width = size
    return ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS, centering=place)


def corner_of(original: Size, size: Size, place: Place) -> tuple[int, int]:
    """How many pixels :func:`fit` cuts off at the top and at the left of the resized picture."""
    scale = max(wanted / side for wanted, side in zip(size, original, strict=True))
    over = [max(0, round(side * scale) - wanted) for wanted, side in zip(size, original, strict=True)]
    return round(over[0] * place[1]), round(over[1] * place[0])


def to_latents(picture: Image.Image) -> Tensor:
    """Pixels as latents (C, H, W) in -1..1."""
    pixels = torch.from_numpy(np.asarray(picture, dtype=np.float32))
    return pixels.reshape(picture.height, picture.width, -1).permute(2, 0, 1) / 127.5 - 1


def to_picture(latents: Tensor) -> Image.Image:
    """The inverse of :func:`to_latents`, for three channels."""
    pixels = ((latents + 1) * 127.5).round().clamp(0, 255).byte()
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
