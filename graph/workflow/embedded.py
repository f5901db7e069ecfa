"""Text that ComfyUI embeds in the files it saves: PNG text chunks and the header of a safetensors file."""

import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

PNG = b"\x89PNG\r\n\x1a\n"  # how a PNG image starts
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
