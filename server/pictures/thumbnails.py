"""Small copies of pictures, made once."""

import contextlib
import hashlib
import os
import uuid
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from ..content.images import FORMATS, MOST_PIXELS, NotAnImage

SIDES = (96, 192, 384, 1024)
"""Pixels of the longer side that may be asked for."""
MOST_KEPT = 40_000
PRUNED = 1000  # so many are removed at once, the oldest


def thumbnail(path: Path, side: int, cache: Path) -> Path:
    """The small WEBP of a picture, upright, from the cache or made now. Raises NotAnImage, FileNotFoundError."""
    facts = path.stat()
    key = hashlib.sha256(f"{path}\0{facts.st_mtime_ns}\0{facts.st_size}\0{side}".encode()).hexdigest()[:32]
    kept = cache / f"{key}.webp"
    if not kept.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        _make(path, side, kept)
        if key.startswith("00"):  # one in 256 looks whether there are too many
            prune(cache)
    return kept


def _make(path: Path, side: int, kept: Path) -> None:
    unfinished = kept.with_name(f".{uuid.uuid4().hex}.part")
    try:
        with Image.open(path, formats=list(FORMATS)) as image:
            if image.width * image.height > MOST_PIXELS:
                raise NotAnImage(f"{path.name} has more than {MOST_PIXELS} pixels")
            image.draft("RGB", (side, side))  # a JPEG is decoded at a smaller size
            upright = ImageOps.exif_transpose(image)
            upright.thumbnail((side, side))
            upright.convert("RGBA" if "A" in upright.getbands() else "RGB").save(unfinished, "WEBP", quality=80)
        os.replace(unfinished, kept)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise error if isinstance(error, NotAnImage) else NotAnImage(f"{path.name}: {error}") from error
    finally:
        unfinished.unlink(missing_ok=True)


def prune(cache: Path, most: int = MOST_KEPT) -> None:
    """Remove the oldest where there are too many."""
    kept = list(cache.glob("*.webp")) if cache.is_dir() else []
    if len(kept) <= most:
        return
    for path in sorted(kept, key=lambda path: path.stat().st_mtime)[: len(kept) - most + PRUNED]:
        with contextlib.suppress(OSError):
            path.unlink()
