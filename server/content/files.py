"""Sending and listing files."""

import os
from pathlib import Path
from typing import Any

from aiohttp import web

from ...files.whole import UNFINISHED
from ..guard.inside import followed

TYPES = {
    ".html": "text/html", ".js": "text/javascript", ".mjs": "text/javascript", ".css": "text/css",
    ".json": "application/json", ".map": "application/json", ".wasm": "application/wasm", ".svg": "image/svg+xml",
    ".md": "text/markdown", ".txt": "text/plain", ".log": "text/plain", ".jsonl": "text/plain", ".csv": "text/plain",
    ".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp", ".gif": "image/gif",
    ".bmp": "image/bmp", ".tif": "image/tiff", ".tiff": "image/tiff", ".avif": "image/avif", ".ico": "image/x-icon",
    ".mp4": "video/mp4", ".webm": "video/webm", ".mp3": "audio/mpeg", ".wav": "audio/wav", ".flac": "audio/flac",
    ".ttf": "font/ttf", ".otf": "font/otf", ".woff": "font/woff", ".woff2": "font/woff2",
    ".webmanifest": "application/manifest+json", ".safetensors": "application/octet-stream",
}  # fmt: skip
"""The system's own table differs between machines, and a module of the wrong type does not load."""

ACTIVE = ("text/html", "text/javascript", "text/css", "image/svg+xml", "application/wasm")
"""What a browser would run or obey if it came from a folder that anybody can fill."""

OTHER = "application/octet-stream"


def content_type(path: Path) -> str:
    return TYPES.get(path.suffix.lower(), OTHER)


def send_file(path: Path, cache: str = "no-cache") -> web.FileResponse:
    """A file of our own or the frontend's. Raises FileNotFoundError."""
    if not path.is_file():
        raise FileNotFoundError(path)
    kind = content_type(path)
    charset = "; charset=utf-8" if kind.startswith("text/") else ""
    return web.FileResponse(path, headers={"Content-Type": kind + charset, "Cache-Control": cache})


def send_foreign_file(path: Path) -> web.FileResponse:
    """A file that somebody else may have made: shown if it is harmless, otherwise only saved."""
    if not path.is_file():
        raise FileNotFoundError(path)
    kind = content_type(path)
    is_active = kind in ACTIVE
    headers = {"Content-Type": OTHER if is_active else kind, "Content-Disposition": disposition(path.name, is_active)}
    return web.FileResponse(path, headers={**headers, "Cache-Control": "no-cache"})


def disposition(name: str, attachment: bool = False) -> str:
    plain = name.encode("ascii", "replace").decode().replace('"', "'").replace("\\", "_")
    return f'{"attachment; " if attachment else ""}filename="{plain}"'


def file_info(path: Path, base: Path, facts: os.stat_result) -> dict[str, Any]:
    """A file as the frontend lists it; times in milliseconds."""
    return {
        "path": path.relative_to(base).as_posix(),
        "size": facts.st_size,
        "modified": int(facts.st_mtime * 1000),
        "created": int(facts.st_ctime * 1000),
    }


def walk(folder: Path, recurse: bool = True, most: int = 10_000) -> list[Path]:
    """Files below a folder, sorted by name; links to elsewhere are not followed, unfinished files not shown."""
    found: list[Path] = []
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not UNFINISHED.fullmatch(name))
        if not recurse:
            folders.clear()
        found += [Path(root, name) for name in sorted(names) if not name.endswith(".part")]
        if len(found) >= most:
            break
    return [path for path in found if not path.is_symlink() or followed(path, folder)][:most]
