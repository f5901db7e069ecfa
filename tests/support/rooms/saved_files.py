"""Files as ComfyUI saves them, with text inside."""

import json
import struct
import zlib

PROMPT = {"1": {"class_type": "A", "inputs": {}}}

WORKFLOW = {"nodes": [], "links": [], "version": 0.4}


def png(*chunks):
    """A PNG of nothing but the given (type, body) chunks."""
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, body in [*chunks, (b"IEND", b"")]:
        parts.append(struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)))
    return b"".join(parts)


def riff(*chunks):
    """A WEBP of nothing but the given (type, body) chunks."""
    body = b"".join(kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2) for kind, body in chunks)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def safetensors(metadata):
    header = json.dumps({"__metadata__": metadata}).encode()
    return len(header).to_bytes(8, "little") + header
