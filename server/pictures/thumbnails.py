"""Small copies of pictures, made once."""

import contextlib
import hashlib
import io
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from ...files.listed import newest_first
from ...files.whole import tidy, whole_or_nothing
from ..content.images import SHOWN, NotAnImage, check_pixels, too_large

SIDES = (96, 192, 384, 1024)
"""Pixels of the longer side that may be asked for."""
MOST_KEPT = 40_000
OLD = 3600.0
"""Seconds after which something unfinished belongs to no server any more."""
PRUNED = 1000  # so many are removed at once, the oldest


def thumbnail(path: Path, side: int, cache: Path) -> Path:
    """The small WEBP of a picture, upright, from the cache or made now. Raises NotAnImage, FileNotFoundError.

    Raises OSError or Unwritable where the copy cannot be kept: that says nothing of the picture.
    """
    facts = path.stat()
    key = hashlib.sha256(f"{path}\0{facts.st_mtime_ns}\0{facts.st_size}\0{side}".encode()).hexdigest()[:32]
    kept = cache / f"{key}.webp"
    if not kept.is_file():
        small = _made_small(path, side)
        with whole_or_nothing(kept, durable=False) as unfinished:  # one that a power cut takes is made again
            unfinished.write_bytes(small)
        if key.startswith("00"):  # one in 256 looks whether there are too many
            prune(cache)
    return kept


def _made_small(path: Path, side: int) -> bytes:
    Image.init()
    try:
        with Image.open(path, formats=[kind for kind in SHOWN if kind in Image.OPEN]) as image:
            check_pixels(image)
            image.draft("RGB", (side, side))  # a JPEG is decoded at a smaller size
            upright = ImageOps.exif_transpose(image)
            upright.thumbnail((side, side))
            small = io.BytesIO()
            upright.convert("RGBA" if "A" in upright.getbands() else "RGB").save(small, "WEBP", quality=80)
            return small.getvalue()
    except Image.DecompressionBombError as error:
        raise NotAnImage(too_large(path.name)) from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise NotAnImage(f"{path.name}: {error}") from error


def prune(cache: Path, most: int = MOST_KEPT) -> None:
    """Remove the oldest where there are too many, and what a killed server left unfinished."""
    if cache.is_dir():
        tidy(cache, older_than=OLD)
    kept = list(cache.glob("*.webp")) if cache.is_dir() else []
    if len(kept) <= most:
        return
    for path in newest_first(kept)[max(0, most - PRUNED) :]:
        with contextlib.suppress(OSError):
            path.unlink()
