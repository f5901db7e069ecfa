"""Pictures and captions on their way into a data set: typed, bounded, whole or not at all, and nothing overwritten."""

import filecmp
import shutil
import stat
import uuid
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO

from ...files.whole import take_place
from ..content.images import NotAnImage, check_image
from ..guard.inside import Outside, inside
from .captions import LONGEST
from .datasets import MOST_FILES, WITH_PLUGIN, is_caption, is_picture

LARGEST_FILE = 200 * 1024**2  # bytes of one picture
LARGEST_ZIP = 8 * 1024**3
MOST_UNPACKED = 32 * 1024**3
SPARE = 512 * 1024**2
"""Bytes that are left free on the disk."""


BROKEN = (zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, EOFError)
"""What the zipfile module raises for damage, passwords and methods that it does not know."""


class NoRoom(Exception):
    """The disk is nearly full."""


@dataclass
class Arrived:
    """What came of a file or an archive."""

    added: list[str] = field(default_factory=list)
    same: list[str] = field(default_factory=list)
    """Were there already, byte for byte."""
    left_out: list[str] = field(default_factory=list)
    """``name: why``."""


def check_type(name: str) -> None:
    """Raises NotAnImage unless the name is that of a picture or a caption."""
    if PurePosixPath(name).suffix.lower() in WITH_PLUGIN:
        raise NotAnImage(f"{name}: convert it to JPEG or PNG first")
    if not (is_picture(PurePosixPath(name).name) or is_caption(PurePosixPath(name).name)):
        raise NotAnImage(f"{name}: only pictures and captions (.txt) belong into a data set")


def check_room(folder: Path, size: int) -> None:
    if shutil.disk_usage(folder).free < size + SPARE:
        raise NoRoom("the disk is nearly full; nothing was added")


def settle(unfinished: Path, folder: Path, name: str) -> str:
    """Put a finished file into its place: "added", or "same" if it is there already.

    Raises FileExistsError for another file of that name, NotAnImage for what is neither picture nor caption, Outside.
    """
    check_type(name)
    path = inside(folder, name)
    if is_caption(path.name):
        if unfinished.stat().st_size > 4 * LONGEST:
            raise NotAnImage(f"{name} is too long for a caption")
    elif path.suffix.lower() != ".avif":  # Pillow reads it from version 11.3 on
        check_image(unfinished, path.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_file() and filecmp.cmp(path, unfinished, shallow=False):
        return "same"
    take_place(unfinished, path, overwrite=False)
    return "added"


def unpack(archive: Path, folder: Path) -> Arrived:
    """Take the pictures and captions out of a ZIP. Raises NotAnImage if it is none, NoRoom if it does not fit."""
    told = Arrived()
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = list(members(opened))
            if len(entries) > MOST_FILES or sum(entry.file_size for entry, _ in entries) > MOST_UNPACKED:
                raise NotAnImage(f"the archive holds more than {MOST_FILES} files or {MOST_UNPACKED} bytes")
            check_room(folder, sum(entry.file_size for entry, _ in entries))
            for entry, name in entries:
                _unpack_one(opened, entry, name, folder, told)
    except (*BROKEN, OSError) as error:
        raise NotAnImage(f"the archive cannot be read: {error}") from error
    return told


def members(opened: zipfile.ZipFile) -> Iterator[tuple[zipfile.ZipInfo, str]]:
    """Entries with the names they get: without the folder that holds everything, and without a Mac's shadow files."""
    files = [entry for entry in opened.infolist() if not entry.is_dir()]
    files = [entry for entry in files if not is_hidden(entry.filename)]
    tops = {entry.filename.split("/")[0] if "/" in entry.filename else "" for entry in files}
    depth = 1 if len(tops) == 1 and "" not in tops else 0
    for entry in files:
        yield entry, "/".join(entry.filename.split("/")[depth:])


def is_hidden(name: str) -> bool:
    return any(
        (part[:1] == "." and part != "..") or part in ("__MACOSX", "Thumbs.db", "desktop.ini")
        for part in name.split("/")
    )


def _unpack_one(opened: zipfile.ZipFile, entry: zipfile.ZipInfo, name: str, folder: Path, told: Arrived) -> None:
    unfinished = folder / f".{uuid.uuid4().hex}.part"
    try:
        check_type(name)
        if stat.S_ISLNK(entry.external_attr >> 16) or entry.file_size > LARGEST_FILE:
            raise NotAnImage(f"{name} is a link, or larger than {LARGEST_FILE} bytes")
        with opened.open(entry) as source, unfinished.open("wb") as target:
            copy_at_most(source, target, entry.file_size)
        getattr(told, settle(unfinished, folder, name)).append(name)
    except FileExistsError:
        told.left_out.append(f"{name}: another file of this name is there")
    except (NotAnImage, Outside, *BROKEN) as error:
        told.left_out.append(str(error) if str(error).startswith(name) else f"{name}: {error}")
    finally:
        unfinished.unlink(missing_ok=True)


def copy_at_most(source: IO[bytes], target: IO[bytes], most: int) -> None:
    """Copy a file whose size was announced. Raises NotAnImage if it is longer: that is how archives explode."""
    left = most
    while chunk := source.read(1 << 20):
        left -= len(chunk)
        if left < 0:
            raise NotAnImage("it is larger than the archive says")
        target.write(chunk)
