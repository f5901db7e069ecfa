"""Text that ComfyUI embeds in the files it saves: PNG text chunks, a WEBP's EXIF, a safetensors file's header."""

import json
import struct
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

PNG = b"\x89PNG\r\n\x1a\n"  # how a PNG image starts
RIFF, WEBP = b"RIFF", b"WEBP"  # at bytes 0 and 8 of a WEBP image
EXIF_PREFIX = b"Exif\0\0"  # that some writers put before the EXIF data
SIGNATURES = (
    (b"\xff\xd8\xff", 0, "a JPEG image"),
    (b"GIF8", 0, "a GIF image"),
    (b"BM", 0, "a BMP image"),
    (b"II*\0", 0, "a TIFF image"),
    (b"MM\0*", 0, "a TIFF image"),
    (b"ftypavif", 4, "an AVIF image"),
    (b"ftyphei", 4, "a HEIC image"),
    (b"JXL ", 4, "a JPEG XL image"),
    (b"\xff\x0a", 0, "a JPEG XL image"),
    (b"ftyp", 4, "an MP4 or QuickTime video"),
    (b"\x1a\x45\xdf\xa3", 0, "a WEBM or Matroska video"),
    (b"AVI ", 8, "an AVI video"),
    (b"WAVE", 8, "a WAV sound"),
    (b"fLaC", 0, "a FLAC sound"),
    (b"OggS", 0, "an Ogg sound"),
    (b"ID3", 0, "an MP3 sound"),
    (b"\xff\xfb", 0, "an MP3 sound"),
    (b"glTF", 0, "a GLB model"),
    (b"GGUF", 0, "a GGUF weights file"),
    (b"PK\x03\x04", 0, "a zip archive, or a pickled weights file"),
    (b"\x80\x02", 0, "a pickled weights file"),
    (b"\x1f\x8b", 0, "a gzip archive"),
    (b"7z\xbc\xaf", 0, "a 7z archive"),
    (b"%PDF", 0, "a PDF document"),
    (b"SQLite format 3", 0, "a SQLite database"),
)
"""How other files begin: (bytes, at which offset, what it is)."""
HEADER_LIMIT = 100_000_000  # bytes; the safetensors format's own limit
TEXT_LIMIT = 50_000_000  # bytes of one inflated PNG text, against decompression bombs


class BrokenFile(ValueError):
    """A file that is not what its name or its first bytes say."""


def safetensors_metadata(path: Path) -> dict[str, str]:
    """The `__metadata__` strings of a safetensors file. Raises BrokenFile."""
    with path.open("rb") as file:
        prefix = file.read(8)
        size = int.from_bytes(prefix, "little")
        if len(prefix) < 8 or size > HEADER_LIMIT:
            raise BrokenFile("is not a safetensors file")
        try:
            header = json.loads(file.read(size))
        except (ValueError, RecursionError) as error:
            raise BrokenFile("is not a safetensors file: its header is broken") from error
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    return {key: text for key, text in (metadata or {}).items() if isinstance(text, str)}


def foreign_kind(data: bytes) -> str | None:
    """What a file is that holds no workflow we read, by its first bytes; None where they do not say."""
    return next((name for mark, place, name in SIGNATURES if data[place : place + len(mark)] == mark), None)


def is_webp(data: bytes) -> bool:
    return data[:4] == RIFF and data[8:12] == WEBP


def webp_texts(data: bytes) -> dict[str, str]:
    """The texts in a WEBP's EXIF, as the frontend reads them: each tag's value is ``key:text``. Raises BrokenFile."""
    from PIL import Image

    block = next((body for kind, body in _riff_chunks(data) if kind == b"EXIF"), b"").removeprefix(EXIF_PREFIX)
    if not block:
        return {}
    exif = Image.Exif()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a block that is cut off
            exif.load(EXIF_PREFIX + block)
            values = [value for value in dict(exif).values() if isinstance(value, str)]
    except Exception as error:  # whatever the library stumbles over
        raise BrokenFile("is a WEBP image with broken EXIF data") from error
    pairs = (_as_utf8(value).rstrip("\0").partition(":") for value in values)
    return {key.lower(): text for key, _, text in pairs if text}  # "Workflow:" is written, too


def _as_utf8(text: str) -> str:
    """The library reads bytes as latin-1; most writers mean UTF-8."""
    try:
        return text.encode("latin-1").decode()
    except UnicodeError:
        return text


def _riff_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    offset = 12
    while offset + 8 <= len(data):
        kind, size = struct.unpack_from("<4sI", data, offset)
        yield kind, data[offset + 8 : offset + 8 + size]
        offset += 8 + size + size % 2  # chunks have an even length


def png_texts(data: bytes) -> dict[str, str]:
    """The text chunks (tEXt, zTXt, iTXt) of a PNG image, by keyword. Raises BrokenFile."""
    texts = {}
    for kind, body in _chunks(data):
        keyword, _, rest = body.partition(b"\0")
        try:
            if kind == b"tEXt":
                texts[keyword.decode("latin-1")] = rest.decode("latin-1")
            elif kind == b"zTXt":
                texts[keyword.decode("latin-1")] = _inflate(rest[1:]).decode("latin-1")
            elif kind == b"iTXt":
                compressed, (_, _, text) = rest[:1] == b"\1", rest[2:].split(b"\0", 2)
                texts[keyword.decode("latin-1")] = (_inflate(text) if compressed else text).decode()
        except (zlib.error, ValueError) as error:
            raise BrokenFile("is a PNG image with a broken text chunk") from error
    return texts


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    offset = len(PNG)
    while offset + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, offset)
        yield kind, data[offset + 8 : offset + 8 + size]
        offset += size + 12  # length, type and checksum


def _inflate(data: bytes) -> bytes:
    inflater = zlib.decompressobj()
    text = inflater.decompress(data, TEXT_LIMIT)
    if inflater.unconsumed_tail:
        raise ValueError("text too long")
    return text
