"""Pictures as a browser asks for them, and what may be uploaded as one."""

import io
from pathlib import Path

from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

FORMATS = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg", ".jfif"),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
}
"""What may be uploaded, and the endings that go with it."""

SHOWN = (*FORMATS, "AVIF", "JPEG2000", "TGA", "PPM", "QOI", "HEIF", "JXL")
"""What a small copy is made of, where this Pillow reads it."""

MOST_PIXELS = 2 * 89_478_485
"""As many as Pillow reads, and so the trainer: a telephone's 108 megapixels are welcome, a bomb is not."""
CHANNELS = ("rgb", "rgba", "a")


class NotAnImage(ValueError):
    """A file that is no picture that we take, or a name that does not fit it."""


def check_image(path: Path, name: str) -> None:
    """Raises NotAnImage unless the file is a picture of a format that the name's ending says, and of sane size."""
    suffix = Path(name).suffix.lower()
    if not any(suffix in endings for endings in FORMATS.values()):
        raise NotAnImage(f"only images can be uploaded ({', '.join(sorted(sum(FORMATS.values(), ())))})")
    try:
        with Image.open(path, formats=list(FORMATS)) as image:
            check_pixels(image)
            kind = image.format or ""
            image.verify()
    except Image.DecompressionBombError as error:
        raise NotAnImage(too_large(name)) from error
    except UnidentifiedImageError as error:
        raise NotAnImage(f"{name} is not an image") from error  # Pillow's words name the file that it waits in
    except (OSError, SyntaxError, ValueError) as error:
        raise NotAnImage(f"{name} is not an image: {error}") from error
    if suffix not in FORMATS.get(kind, ()):
        raise NotAnImage(f"{name} is in truth a {kind} image")


def check_pixels(image: Image.Image) -> None:
    """Raises Pillow's own error where the image has more pixels than we decode: Pillow's limit may be another one."""
    if image.width * image.height > MOST_PIXELS:
        raise Image.DecompressionBombError


def too_large(name: str) -> str:
    return f"{name} has more than {round(MOST_PIXELS / 1e6)} megapixels: make it smaller"


def put_alpha(original: Path, mask: Path) -> None:
    """Replace the file ``mask`` by the picture ``original`` (as PNG, its texts kept) with the mask's alpha channel.

    Raises NotAnImage where one of them is no picture, the mask is no PNG, or their sizes differ.
    """
    check_image(original, original.name)
    with Image.open(mask, formats=list(FORMATS)) as painted, Image.open(original, formats=list(FORMATS)) as image:
        if painted.format != "PNG":
            raise NotAnImage("a mask must be a PNG image: its alpha channel is what is masked")
        if painted.size != image.size:
            raise NotAnImage(f"the mask has the size {painted.size}, and the image {image.size}")
        texts = PngInfo()
        for key, text in image.info.items():
            if isinstance(key, str) and isinstance(text, str):
                texts.add_text(key, text)
        alpha, whole = painted.convert("RGBA").getchannel("A"), image.convert("RGBA")
    whole.putalpha(alpha)
    whole.save(mask, "PNG", pnginfo=texts, compress_level=4)


def converted(path: Path, preview: str | None, channel: str | None) -> tuple[bytes, str] | None:
    """(bytes, MIME type) of a picture as ``preview`` ("webp;90", "jpeg;80") and ``channel`` (rgb, a) want it.

    None if the file is to be sent as it is: nothing was asked for, or it is no picture that can be converted.
    """
    kind, _, quality = (preview or "").partition(";")
    wants_channel = channel in ("rgb", "a")
    if not wants_channel and kind not in ("webp", "jpeg"):
        return None
    try:
        with Image.open(path, formats=list(FORMATS)) as image:
            if image.width * image.height > MOST_PIXELS or getattr(image, "is_animated", False):
                return None
            return _encoded(_channel(image, channel), kind or "png", quality)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError):
        return None


def _channel(image: Image.Image, channel: str | None) -> Image.Image:
    if channel == "a":
        alpha = image.convert("RGBA").getchannel("A")
        black = Image.new("L", image.size)
        return Image.merge("RGBA", (black, black, black, alpha))
    return image.convert("RGB") if channel == "rgb" else image


def _encoded(image: Image.Image, kind: str, quality: str) -> tuple[bytes, str]:
    buffer = io.BytesIO()
    number = int(quality) if quality.isascii() and quality.isdigit() and 1 <= int(quality[:4]) <= 100 else 90
    if kind == "jpeg":
        image = image.convert("RGB")
    elif image.mode not in ("RGB", "RGBA", "L"):
        image = image.convert("RGBA")
    image.save(buffer, kind.upper(), **({} if kind == "png" else {"quality": number}))
    return buffer.getvalue(), f"image/{kind}"
