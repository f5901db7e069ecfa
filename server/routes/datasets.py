"""Data sets: what there is, bringing pictures in, and editing captions."""

import asyncio
import uuid
from pathlib import Path
from typing import Any

from aiohttp import web

from ..content.files import send_foreign_file
from ..content.images import NotAnImage
from ..guard.bodies import BadBody, read_object
from ..pictures.arrivals import LARGEST_FILE, LARGEST_ZIP, NoRoom, check_room, check_type, settle, unpack
from ..pictures.captions import BadCaption
from ..pictures.datasets import Datasets
from .thumbnails import small_copy

DATASETS: web.AppKey[Datasets] = web.AppKey("datasets")
MOST_CHANGES = 20_000
MOST_FIRST = 500


def _sets(request: web.Request) -> Datasets:
    return request.app[DATASETS]


async def show_all(request: web.Request) -> web.Response:
    return web.json_response({"datasets": await asyncio.to_thread(_sets(request).listed)})


async def create(request: web.Request) -> web.Response:
    """A new data set of about that name."""
    name = (await read_object(request)).get("name")
    if not isinstance(name, str):
        raise BadBody("name must be a text")
    made = await asyncio.to_thread(_sets(request).create, name)
    return web.json_response(_sets(request).summary(made))


async def show_one(request: web.Request) -> web.Response:
    """All pictures, with what is odd about each; with ``?first=60`` so many of them, at once, and ``more``."""
    sets, name, most = _sets(request), request.match_info["name"], request.query.get("first")
    place = str(await asyncio.to_thread(sets.place, name))
    if most is None:
        entries, left_out = await asyncio.to_thread(sets.shown, name)
        return web.json_response({"name": name, "path": place, "entries": entries, "left_out": left_out})
    if not (most.isascii() and most.isdigit() and 0 < int(most[:4]) <= MOST_FIRST):
        raise BadBody(f"first must be a number from 1 to {MOST_FIRST}")
    entries = await asyncio.to_thread(sets.first, name, int(most))
    return web.json_response({"name": name, "path": place, "entries": entries, "more": True})


async def show_picture(request: web.Request) -> web.StreamResponse:
    """A picture as it is, or with ``?side=192`` a small copy."""
    path = await asyncio.to_thread(_sets(request).picture, request.match_info["name"], request.match_info["file"])
    return await small_copy(request, path) if "side" in request.query else send_foreign_file(path)


async def add_file(request: web.Request) -> web.Response:
    """One picture or caption as the body: {"result": "added"}, or "same"; 409 where another file has the name."""
    folder, name = _sets(request).own(request.match_info["name"]), request.match_info["file"]
    try:
        check_type(name)
        unfinished = await _receive(request, folder, LARGEST_FILE)
        try:
            result = await asyncio.to_thread(settle, unfinished, folder, name)
        finally:
            unfinished.unlink(missing_ok=True)
    except NotAnImage as error:
        raise BadBody(str(error), 415) from error
    return web.json_response({"result": result})


async def add_archive(request: web.Request) -> web.Response:
    """A ZIP as the body; tells what was added, what was there, and what was left out and why."""
    folder = _sets(request).own(request.match_info["name"])
    try:
        unfinished = await _receive(request, folder, LARGEST_ZIP)
        try:
            told = await asyncio.to_thread(unpack, unfinished, folder)
        finally:
            unfinished.unlink(missing_ok=True)
    except NoRoom as error:
        raise BadBody(str(error), 507) from error
    except NotAnImage as error:
        raise BadBody(str(error), 415) from error
    return web.json_response({"added": len(told.added), "same": len(told.same), "left_out": told.left_out[:1000]})


async def _receive(request: web.Request, folder: Path, most: int) -> Path:
    """The body in a file beside its place. Raises BadBody if it is too long, or the disk too full."""
    try:
        check_room(folder, request.content_length or 0)
    except NoRoom as error:
        raise BadBody(str(error), 507) from error
    unfinished, size = folder / f".{uuid.uuid4().hex}.part", 0
    try:
        with unfinished.open("wb") as file:
            async for chunk in request.content.iter_chunked(1 << 20):
                size += len(chunk)
                if size > most:
                    raise BadBody(f"the file is larger than {most} bytes", 413)
                file.write(chunk)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    return unfinished


async def edit(request: web.Request) -> web.Response:
    """Captions by picture, each with the version that was seen; tells what is there now, and where that differs."""
    sets, name = _sets(request), request.match_info["name"]
    changes = [_change(item) for item in _list((await read_object(request)).get("changes"))]
    try:
        now = await asyncio.to_thread(sets.edit, name, changes)
    except BadCaption as error:
        raise BadBody(str(error)) from error
    return web.json_response({"captions": now})


def _list(found: Any) -> list[Any]:
    if not isinstance(found, list) or len(found) > MOST_CHANGES:
        raise BadBody(f"changes must be a list of at most {MOST_CHANGES}")
    return found


def _change(item: Any) -> tuple[str, str, str]:
    texts = [item.get(key) for key in ("picture", "caption", "was")] if isinstance(item, dict) else []
    picture, caption, was = texts or (None, None, None)
    if not (isinstance(picture, str) and isinstance(caption, str) and isinstance(was, str)):
        raise BadBody("a change needs picture, caption and was, all texts")
    return picture, caption, was


ROUTES = (
    ("GET", "/rollout/datasets", show_all),
    ("POST", "/rollout/datasets", create),
    ("GET", "/rollout/datasets/{name}", show_one),
    ("GET", "/rollout/datasets/{name}/files/{file:[\\s\\S]+}", show_picture),
    ("PUT", "/rollout/datasets/{name}/files/{file:[\\s\\S]+}", add_file),
    ("PUT", "/rollout/datasets/{name}/archive", add_archive),
    ("PUT", "/rollout/datasets/{name}/captions", edit),
)
