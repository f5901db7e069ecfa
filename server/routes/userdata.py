"""The user's own files: workflows saved from the editor, as plain JSON in a folder that can be shared."""

import asyncio
import os
from pathlib import Path
from typing import Any

from aiohttp import web

from ...files.listed import still_there
from ...files.whole import take_place, write_bytes
from ..content.files import content_type, disposition, file_info, walk
from ..guard.bodies import BadBody, read_bytes
from ..guard.inside import inside, new_inside
from ..studio import STUDIO

EMPTY = {
    "user.css": b"",
    "comfy.templates.json": b"[]",
    "workflows/.index.json": b'{"favorites": []}',
}
"""Files that the frontend asks for before anybody wrote them."""


def _base(request: web.Request) -> Path:
    return request.app[STUDIO].folders.user


def _path(request: web.Request) -> Path:
    return inside(_base(request), request.match_info["file"])


async def list_folder(request: web.Request) -> web.Response:
    """The files of a folder: names, pieces of names (split) or facts (full_info). An unknown folder is empty."""
    wanted = request.query.get("dir", "").rstrip("/")
    if not wanted:
        raise BadBody("dir is missing")
    folder, recurse = inside(_base(request), wanted), _asks(request, "recurse")
    files = await asyncio.to_thread(walk, folder, recurse) if folder.is_dir() else []
    if _asks(request, "full_info"):
        return web.json_response([file_info(path, folder, facts) for path, facts in still_there(files)])
    names = [path.relative_to(folder).as_posix() for path in files]
    return web.json_response([[name, *name.split("/")] for name in names] if _asks(request, "split") else names)


async def list_tree(request: web.Request) -> web.Response:
    """One level of the folder tree, files and folders."""
    wanted = request.query.get("path", "").rstrip("/")
    base = _base(request).resolve()
    folder = inside(base, wanted) if wanted else base
    entries = sorted(folder.iterdir()) if folder.is_dir() else []
    return web.json_response([_tree_entry(path, base) for path in entries if not path.name.endswith(".part")])


def _tree_entry(path: Path, base: Path) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": path.name, "path": path.relative_to(base).as_posix()}
    if path.is_dir():
        return entry | {"type": "directory"}
    facts = path.lstat()
    return entry | {"type": "file", "size": facts.st_size, "modified": int(facts.st_mtime)}


async def show(request: web.Request) -> web.StreamResponse:
    """A file as it was written. It is offered for saving, never run: anybody may have put it there."""
    path, name = _path(request), request.match_info["file"]
    if not path.is_file() and name in EMPTY:
        return web.Response(body=EMPTY[name], content_type=content_type(path))
    if not path.is_file():
        raise FileNotFoundError(path)
    if name == "user.css":
        return web.FileResponse(path, headers={"Content-Type": "text/css; charset=utf-8"})
    headers = {"Content-Type": content_type(path), "Content-Disposition": disposition(path.name, True)}
    return web.FileResponse(path, headers=headers)


async def save(request: web.Request) -> web.Response:
    path = new_inside(_base(request), request.match_info["file"])
    data = await read_bytes(request)
    await asyncio.to_thread(write_bytes, path, data, overwrite=request.query.get("overwrite") != "false")
    return _saved(request, path)


async def delete(request: web.Request) -> web.Response:
    path = _path(request)
    if not path.is_file():
        raise FileNotFoundError(path)
    path.unlink()
    return web.Response(status=204)


async def move(request: web.Request) -> web.Response:
    source, target = _path(request), new_inside(_base(request), request.match_info["target"])
    if not source.is_file():
        raise FileNotFoundError(source)
    target.parent.mkdir(parents=True, exist_ok=True)
    overwrite = request.query.get("overwrite") == "true"
    take_place(source, target, overwrite)
    if not overwrite and source != target and source.exists():
        os.unlink(source)
    return _saved(request, target)


def _saved(request: web.Request, path: Path) -> web.Response:
    base = _base(request).resolve()
    facts = file_info(path, base, path.stat())
    return web.json_response(facts if _asks(request, "full_info") else facts["path"])


def _asks(request: web.Request, name: str) -> bool:
    return request.query.get(name, "").lower() == "true"


async def style(request: web.Request) -> web.StreamResponse:
    path = _base(request) / "user.css"
    if path.is_file():
        return web.FileResponse(path, headers={"Content-Type": "text/css; charset=utf-8"})
    return web.Response(content_type="text/css")


ROUTES = (
    ("GET", "/user.css", style),
    ("GET", "/userdata", list_folder),
    ("GET", "/v2/userdata", list_tree),
    ("GET", "/userdata/{file}", show),
    ("POST", "/userdata/{file}", save),
    ("DELETE", "/userdata/{file}", delete),
    ("POST", "/userdata/{file}/move/{target}", move),
)
