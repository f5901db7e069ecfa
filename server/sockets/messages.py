"""What goes through a WebSocket: JSON texts, and pictures in ComfyUI's binary frames."""

import io
import json
import struct
from collections.abc import Hashable
from functools import cached_property
from typing import Any

from PIL.Image import Image

from .plain_json import to_text

PREVIEW_IMAGE = 1
PREVIEW_IMAGE_WITH_METADATA = 4
LARGEST_PREVIEW = 1024  # pixels of its longer side
QUALITY = 88


class Message:
    """One JSON message for any number of clients; its text is made once, when the first of them is ready for it."""

    def __init__(self, kind: str, data: Any, key: Hashable = None) -> None:
        self.kind, self.data = kind, data
        self.key = key
        """None: must arrive. Otherwise only the newest of its key matters, and a slow client may miss the others."""

    def frame(self, metadata: bool) -> str | bytes:
        """What to send to a client that does, or does not, understand previews with metadata."""
        return self.text

    @cached_property
    def text(self) -> str:
        return to_text({"type": self.kind, "data": self.data})


class Preview(Message):
    """A picture on a node. It is encoded only if there is somebody to send it to, and once for all of them."""

    def __init__(self, picture: Image, ids: dict[str, Any]) -> None:
        """``ids`` say where it belongs: node_id, prompt_id, display_node_id, parent_node_id, real_node_id."""
        super().__init__("preview", ids, ("preview", ids["node_id"]))
        self.picture = picture

    def frame(self, metadata: bool) -> str | bytes:
        mime, image = self.encoded
        if not metadata:
            return struct.pack(">II", PREVIEW_IMAGE, 2 if mime == "image/png" else 1) + image
        header = json.dumps({**self.data, "image_type": mime}).encode()
        return struct.pack(">II", PREVIEW_IMAGE_WITH_METADATA, len(header)) + header + image

    @cached_property
    def encoded(self) -> tuple[str, bytes]:
        """(MIME type, bytes): PNG where there is transparency, else JPEG."""
        picture = self.picture
        if max(picture.size) > LARGEST_PREVIEW:
            picture = picture.copy()
            picture.thumbnail((LARGEST_PREVIEW, LARGEST_PREVIEW))
        is_transparent = picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info
        buffer = io.BytesIO()
        if is_transparent:
            picture.save(buffer, "PNG", compress_level=1)
            return "image/png", buffer.getvalue()
        picture.convert("RGB").save(buffer, "JPEG", quality=QUALITY, subsampling=0)
        return "image/jpeg", buffer.getvalue()
