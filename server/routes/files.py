"""Showing results, and taking images."""

import asyncio
import hashlib
import json
import re
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiohttp import BodyPartReader, web

from ...files.listed import newest_first
from ...files.whole import take_place
from ...graph.workflow.embedded import BrokenFile, safetensors_metadata
from ..content.files import disposition, send_foreign_file, walk
from ..content.folders import Folders
from ..content.images import NotAnImage, check_image, converted, put_alpha
from ..guard.bodies import BadBody
from ..guard.inside import inside, new_inside
from ..studio import STUDIO

LARGEST_UPLOAD = 100 * 1024**2  # bytes
MOST_COPIES = 10_000
ANNOTATED = re.compile(r"(.*) \[(input|output|temp)\]")
ORDINARY = 4096  # bytes of a form's text field


async def view(request: web.Request) -> web.StreamResponse:
    """A file of the input, output or temp folder; pictures also smaller, or one channel of them."""
    path = named(request)
    if not path.is_file():
        raise FileNotFoundError(path)
    preview, channel = request.query.get("preview"), request.query.get("channel")
    made = await asyncio.to_thread(converted, path, preview, channel)
    if made is None:
        return send_foreign_file(path)
    headers = {"Content-Disposition": disposition(path.name), "Cache-Control": "no-cache"}
    return web.Response(body=made[0], content_type=made[1], headers=headers)


async def view_metadata(request: web.Request) -> web.Response:
    """The texts in the header of a weights file, its workflow among them. Nothing else of the file is read."""
    try:
        folder = request.app[STUDIO].folders.of_type(request.match_info["folder"])
        path = inside(folder, request.query.get("filename", ""))
        return web.json_response(await asyncio.to_thread(safetensors_metadata, path))
    except KeyError:
        raise FileNotFoundError from None
    except BrokenFile as error:
        raise BadBody(str(error)) from error


async def list_folder(request: web.Request) -> web.Response:
    """Names with their folder in brackets, newest first."""
    kind = request.match_info["kind"]
    try:
        folder = request.app[STUDIO].folders.of_type(kind)
    except KeyError:
        return web.json_response({"error": "the folder must be input, output or temp"}, status=400)
    files = await asyncio.to_thread(_newest_first, folder)
    return web.json_response([f"{name} [{kind}]" for name in files])


async def upload_image(request: web.Request) -> web.Response:
    """Keep an uploaded picture; the same one again is the same file, another one of its name gets a number."""
    return await _upload(request, _as_it_is)


async def upload_mask(request: web.Request) -> web.Response:
    """Keep a picture that is here already with the alpha channel of the uploaded one, as a mask painted on it.

    ``original_ref`` is the picture, as JSON: {"filename", "subfolder", "type"}.
    """
    return await _upload(request, _masked)


async def _upload(request: web.Request, prepare: Callable[[Folders, Path, dict[str, str]], None]) -> web.Response:
    """``prepare`` makes of the received file, in its place, the one to keep."""
    if not request.content_type.startswith("multipart/"):
        raise BadBody("an upload must be a multipart form")
    folders = request.app[STUDIO].folders
    unfinished = folders.temp / f".{uuid.uuid4().hex}.part"
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    try:
        name, fields = await _receive(request, unfinished)
        await asyncio.to_thread(check_image, unfinished, name)
        kind, subfolder = fields.get("type") or "input", fields.get("subfolder", "")
        path = _target(folders, kind, subfolder, name)
        overwrite = fields.get("overwrite", "").lower() in ("true", "1")
        await asyncio.to_thread(prepare, folders, unfinished, fields)
        path = await asyncio.to_thread(_store, unfinished, path, overwrite)
    except NotAnImage as error:
        raise BadBody(str(error), 415) from error
    except (ValueError, AssertionError) as error:  # the latter is the library's word for a form without boundary
        raise BadBody(str(error) or "the form is malformed") from error
    finally:
        unfinished.unlink(missing_ok=True)
    return web.json_response({"name": path.name, "subfolder": subfolder, "type": kind})


def _as_it_is(folders: Folders, unfinished: Path, fields: dict[str, str]) -> None:
    pass


def _masked(folders: Folders, unfinished: Path, fields: dict[str, str]) -> None:
    names: tuple[Any, ...] = ()
    try:
        reference = json.loads(fields.get("original_ref", ""))
        names = reference["filename"], reference.get("type") or "output", reference.get("subfolder") or ""
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        pass
    if not names or not all(isinstance(name, str) for name in names):
        raise BadBody('original_ref must be JSON: {"filename": ..., "subfolder": ..., "type": ...}')
    original = _existing(folders, *names)
    if not original.is_file():
        raise BadBody(f"original_ref: there is no file {names[0]!a:.100}", 404)
    put_alpha(original, unfinished)


async def _receive(request: web.Request, unfinished: Path) -> tuple[str, dict[str, str]]:
    """Write the form's image to a file; returns its name and the other fields."""
    name = ""
    fields: dict[str, str] = {}
    reader = await request.multipart()
    while (part := await reader.next()) is not None:
        if not isinstance(part, BodyPartReader) or len(fields) > 16:
            raise BadBody("the form has parts that nobody asked for")
        if part.name == "image":
            name = part.filename or ""
            await _write_part(part, unfinished)
        else:
            value = await part.read_chunk(ORDINARY)
            fields[part.name or ""] = value.decode("utf-8", "replace")
            await part.release()
    if not name:
        raise BadBody("the form has no image with a file name")
    return name, fields


async def _write_part(part: BodyPartReader, path: Path) -> None:
    size = 0
    with path.open("wb") as file:
        while chunk := await part.read_chunk(256 * 1024):
            size += len(chunk)
            if size > LARGEST_UPLOAD:
                raise BadBody(f"the file is larger than {LARGEST_UPLOAD} bytes", 413)
            file.write(chunk)


def _target(folders: Folders, kind: str, subfolder: str, name: str) -> Path:
    try:
        folder = folders.of_type(kind)
    except KeyError:
        raise BadBody("type must be input, output or temp") from None
    if "/" in name or name.startswith("."):
        raise BadBody("the file name must be a plain name")
    return new_inside(folder, f"{subfolder}/{name}" if subfolder else name)


def _store(unfinished: Path, path: Path, overwrite: bool) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    copy = path.with_name(f".{unfinished.name}")  # beside its place: the temp folder may be on another disk
    shutil.copyfile(unfinished, copy)
    try:
        digest = _digest(copy)
        for number in range(MOST_COPIES):
            named = path if number == 0 else path.with_name(f"{path.stem} ({number}){path.suffix}")
            if not overwrite and named.is_file() and _digest(named) == digest:
                return named
            try:
                take_place(copy, named, overwrite)
            except FileExistsError:
                continue
            return named
        raise BadBody("too many files of this name")
    finally:
        copy.unlink(missing_ok=True)


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def named(request: web.Request) -> Path:
    """The file that a /view query names; ComfyUI writes the folder behind the name, too."""
    name, kind = request.query.get("filename", ""), request.query.get("type", "output")
    annotated = ANNOTATED.fullmatch(name)
    if annotated:
        name, kind = annotated[1], annotated[2]
    if not name:
        raise BadBody("filename is missing")
    return _existing(request.app[STUDIO].folders, name, kind, request.query.get("subfolder", ""))


def _existing(folders: Folders, name: str, kind: str, subfolder: str) -> Path:
    """The path of a file of the input, output or temp folder. Raises BadBody for other folders."""
    try:
        folder = folders.of_type(kind)
    except KeyError:
        raise BadBody("type must be input, output or temp") from None
    subfolder = subfolder.rstrip("/")
    return inside(folder, f"{subfolder}/{name}" if subfolder else name)


def _newest_first(folder: Path) -> list[str]:
    files = [path for path in walk(folder, recurse=False) if not path.name.startswith(".")] if folder.is_dir() else []
    return [path.name for path in newest_first(files)]


ROUTES = (
    ("GET", "/view", view),
    ("GET", "/view_metadata/{folder}", view_metadata),
    ("POST", "/upload/image", upload_image),
    ("POST", "/upload/mask", upload_mask),
    ("GET", "/internal/files/{kind}", list_folder),
)
