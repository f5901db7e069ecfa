"""Files of pictures, as a person sees them: read whole, or only looked at, so that what is damaged is known early."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL
from PIL import Image, ImageOps

from .buckets import Size
from .folder import WITH_PLUGIN, printable
from .index import looked_up


def read_image(path: Path, mode: str = "RGB", background: str = "white", opened: BytesIO | None = None) -> Image.Image:
    """The picture as a person sees it: upright (EXIF), transparency laid over ``background``, first frame only.

    ``opened`` is read instead of the path where it is given. Raises ValueError, naming the file, if it is damaged or
    not an image.
    """
    try:
        with Image.open(opened or path) as file:
            return eight_bit(ImageOps.exif_transpose(file), background).convert(mode)
    except Exception as error:  # a damaged file makes Pillow raise almost anything
        raise ValueError(unreadable(path, error)) from error


def eight_bit(picture: Image.Image, background: str) -> Image.Image:
    """The picture without its transparency, and with 0..255 where it has 0..65535, which Pillow would cut off."""
    if picture.mode == "F":  # as most programs have them, 0..1; Pillow takes them for 0..255
        pixels = np.nan_to_num(np.asarray(picture))
        return Image.fromarray((pixels * (255 if pixels.max() <= 1 else 1)).clip(0, 255).round().astype(np.uint8))
    if picture.mode.startswith("I"):
        return Image.fromarray((np.asarray(picture).clip(0, 65535) / 257).round().astype(np.uint8))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, background), picture)
    return picture


def read_opacity(path: Path) -> Image.Image:
    """The picture's alpha channel, upright; raises ValueError, naming the file, if it is damaged."""
    try:
        with Image.open(path) as file:
            return ImageOps.exif_transpose(file).convert("RGBA").getchannel("A")
    except Exception as error:  # a damaged file makes Pillow raise almost anything
        raise ValueError(unreadable(path, error)) from error


def unreadable(path: Path, error: Exception) -> str:
    """One line on a file that Pillow could not read."""
    named = printable(str(path))
    if isinstance(error, Image.DecompressionBombError):
        most = round(2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6)
        return f"cannot read {named}: it has more than {most} megapixels; make it smaller, for training cuts it anyway"
    remedy = " (convert it to JPEG or PNG, or install Pillow's plug-in)" if path.suffix.lower() in WITH_PLUGIN else ""
    told = "cannot identify image file" if isinstance(error, PIL.UnidentifiedImageError) else str(error)
    if isinstance(error, PermissionError):  # the system's words name the file once more
        told = "permission denied"
    return f"cannot read {named}: {told or type(error).__name__}{remedy}"


class Look(NamedTuple):
    """What is known of an image file before it is used."""

    damage: str = ""
    """What is wrong with it; empty if nothing is."""
    size: Size = (0, 0)
    """Height and width as a person sees it."""
    is_transparent: bool = False


def look(path: Path, opened: BytesIO | None = None) -> Look:
    """Read all of an image file, or of what is given instead, but decode a JPEG at an eighth of its size."""
    try:
        with Image.open(opened or path) as file:
            size, transparent = file.size, file.has_transparency_data
            # The orientation is asked for first, and not of TIFF: Pillow turns its size by itself.
            turned = file.format != "TIFF" and file.getexif().get(0x0112, 1) in (5, 6, 7, 8)
            file.draft(None, (1, 1))
            # Read to its end: Pillow's verify() overlooks files that were cut short, a step would not.
            eight_bit(ImageOps.exif_transpose(file), "white").convert("RGB")
    except Exception as error:  # a damaged file makes Pillow raise almost anything
        return Look(unreadable(path, error))
    return Look("", size if turned else size[::-1], transparent)


def looks_at(paths: Sequence[Path], index: Path | None = None) -> list[Look]:
    """:func:`look` of each, kept in the file ``index``; what is damaged is looked at again the next time."""
    found = looked_up(paths, look, lambda seen: not seen.damage, index, f"looks by Pillow {PIL.__version__}")
    return [Look(damage, tuple(size), transparent) for damage, size, transparent in found]
