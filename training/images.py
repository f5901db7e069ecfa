"""A folder of images as a data set: captions beside the files, classes from sub-folders."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Generator, Tensor

from .data import Batch, DatasetInfo

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})

Crop = Literal["center", "random"]


@dataclass(frozen=True)
class ImageItem:
    path: Path
    caption: str
    label: int


def find_images(folder: Path) -> list[Path]:
    """All image files below the folder, sorted by name; raises ValueError where there is no folder or no image."""
    if not folder.is_dir():
        hint = f" (without the spaces around it, {str(folder).strip()!r} does)" if _exists_stripped(folder) else ""
        raise ValueError(f"the folder {str(folder)!r} does not exist{hint}")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not found:
        raise ValueError(f"the folder {str(folder)!r} holds no images ({', '.join(sorted(SUFFIXES))})")
    return found


def _exists_stripped(folder: Path) -> bool:
    stripped = str(folder).strip()
    return stripped != str(folder) and Path(stripped).is_dir()


def caption_of(image: Path) -> str:
    """The text beside the image: same stem, ``.txt`` or else ``.caption``; empty where there is none."""
    for suffix in (".txt", ".caption"):
        text = image.with_suffix(suffix)
        if text.is_file():
            return text.read_text(encoding="utf-8", errors="replace").strip()
    return ""


def read_image(path: Path, mode: str = "RGB", background: str = "white", *, quickly: bool = False) -> Image.Image:
    """The picture as a person sees it: upright (EXIF), transparency laid over ``background``, first frame only.

    ``quickly`` reads all of the file but decodes a JPEG at an eighth of its size. Raises ValueError, naming the file,
    if it is damaged or not an image.
    """
    try:
        with Image.open(path) as file:
            if quickly:
                file.draft(None, (1, 1))
            return eight_bit(ImageOps.exif_transpose(file), background).convert(mode)
    except Exception as error:  # a damaged file makes Pillow raise almost anything
        raise ValueError(f"cannot read {path}: {str(error) or type(error).__name__}") from error


def eight_bit(picture: Image.Image, background: str) -> Image.Image:
    """The picture without its transparency, and with 0..255 where it has 0..65535, which Pillow would cut off."""
    if picture.mode.startswith("I"):
        return Image.fromarray((np.asarray(picture).clip(0, 65535) / 257).round().astype(np.uint8))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, background), picture)
    return picture


def damage(path: Path) -> str:
    """What is wrong with an image file; empty if nothing is."""
    try:
        read_image(path, quickly=True)
    except ValueError as error:
        return str(error)
    return ""


def fit(picture: Image.Image, size: int, crop: Crop, generator: Generator) -> Image.Image:
    """Resize the shorter side to ``size`` and cut out a square, from the centre or anywhere."""
    where = (0.5, 0.5) if crop == "center" else tuple(torch.rand(2, generator=generator).tolist())
    return ImageOps.fit(picture, (size, size), Image.Resampling.LANCZOS, centering=where)


def to_latents(picture: Image.Image) -> Tensor:
    """Pixels as latents (C, H, W) in -1..1."""
    pixels = torch.from_numpy(np.asarray(picture, dtype=np.float32))
    return pixels.reshape(picture.height, picture.width, -1).permute(2, 0, 1) / 127.5 - 1


class ImageFolder:
    """Images below a folder. Unreadable ones are named and left out; if none is left, that is an error."""

    def __init__(
        self,
        folder: Path,
        *,
        size: int = 64,
        repeats: int = 1,
        crop: Crop = "center",
        flip: bool = False,
        color: Literal["RGB", "L"] = "RGB",
        background: str = "white",
    ) -> None:
        self.size, self.crop, self.flip, self.color, self.background = size, crop, flip, color, background
        paths = find_images(folder)
        classes = tuple(sorted({path.relative_to(folder).parts[0] for path in paths if path.parent != folder}))
        stray = [path for path in paths if path.parent == folder]
        if classes and stray:
            more = f" and {len(stray) - 1} more" if len(stray) > 1 else ""
            raise ValueError(
                f"{stray[0]} lies beside the class folders ({', '.join(classes)}), so it has no class: "
                f"move it{more} into one of them, or all images into one folder"
            )
        self.damaged: list[str] = []
        self.items = list(self._readable(folder, paths, classes))
        if not self.items:
            raise ValueError(f"none of the {len(paths)} images in {str(folder)!r} can be read; {self.damaged[0]}")
        if self.damaged:
            logging.warning("left out %d of %d images: %s", len(self.damaged), len(paths), "; ".join(self.damaged))
        channels = len(color)
        self.info = DatasetInfo(folder.name, len(self.items) * repeats, channels, size, classes)

    def _readable(self, folder: Path, paths: list[Path], classes: tuple[str, ...]) -> Iterator[ImageItem]:
        # Each file is read to its end: Pillow's verify() overlooks those that were cut short, a step would not.
        with ThreadPoolExecutor() as pool:
            damages = pool.map(damage, paths)
        for path, found in zip(paths, damages, strict=True):
            if found:
                self.damaged.append(found)
            else:
                name = path.relative_to(folder).parts[0]
                yield ImageItem(path, caption_of(path), classes.index(name) if name in classes else 0)

    def batch(self, items: list[int], generator: Generator) -> Batch:
        chosen = [self.items[item % len(self.items)] for item in items]
        latents = torch.stack([self._latents(item, generator) for item in chosen])
        conditioning = {"label": torch.tensor([item.label for item in chosen])} if self.info.classes else {}
        return Batch(latents, conditioning, tuple(item.caption for item in chosen))

    def _latents(self, item: ImageItem, generator: Generator) -> Tensor:
        latents = to_latents(fit(read_image(item.path, self.color, self.background), self.size, self.crop, generator))
        flipped = self.flip and bool(torch.rand(1, generator=generator) < 0.5)
        return latents.flip(-1) if flipped else latents
