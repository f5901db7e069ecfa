"""Files that are whole or not there, also after a power cut: written beside their place, flushed, and then named."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

WINDOWS = os.name == "nt"
PREVIOUS = "previous"
"""Where a folder waits while another takes its place."""
UNFINISHED = re.compile(r"\.(.+)-[a-z0-9_]{8}")
"""The names of the temporary places that :func:`whole_or_nothing` makes."""
NO_FLUSHING = (errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EBADF)
"""What file systems say (some network drives do) that cannot flush a folder."""
PATIENCE = 2.0
"""Seconds for which Windows is asked again to rename what a virus scanner or an indexer has open."""


class Unwritable(ValueError):
    """Nothing can be written there; the message says where, and why."""


def writable(folder: Path) -> Path:
    """The folder, made if need be; raises Unwritable if nothing can be written there."""
    try:
        make_folder(folder)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        reason = error.strerror or error
        raise Unwritable(f"cannot write in {str(folder)!r} ({reason}): choose another output folder") from error


def make_folder(folder: Path) -> None:
    """Make a folder and all above it, if need be, so that a power cut does not take them away again."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    flush_folder(folder.parent)


def flush(path: Path) -> None:
    """Bring a file, or a folder with all that is in it, onto the disk itself."""
    if path.is_dir():
        for inner in path.iterdir():
            flush(inner)
        flush_folder(path)
    else:
        _flush(path, os.O_RDWR if WINDOWS else os.O_RDONLY)


def flush_folder(folder: Path) -> None:
    """Bring the names in a folder onto the disk; Windows writes them through by itself."""
    if WINDOWS:
        return
    try:
        _flush(folder, os.O_RDONLY)
    except OSError as error:
        if error.errno not in NO_FLUSHING:
            raise


def _flush(path: Path, flags: int) -> None:
    opened = os.open(path, flags)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def take_place(source: Path, target: Path, overwrite: bool = True) -> None:
    """Rename, over what is there; on Windows with patience for whoever has it open just now.

    Without ``overwrite`` raises FileExistsError for a file whose name is taken.
    """
    if not overwrite:
        try:
            return os.link(source, target)  # unlike a look before a rename, this cannot lose a race
        except FileExistsError:
            raise
        except OSError:  # a file system without links
            if target.exists():
                raise FileExistsError(target) from None
    until = time.monotonic() + (PATIENCE if WINDOWS else 0)
    while True:
        try:
            return os.replace(source, target)
        except PermissionError:
            if time.monotonic() >= until:
                raise
            time.sleep(0.05)


@contextmanager
def whole_or_nothing(path: Path, durable: bool = True, overwrite: bool = True) -> Iterator[Path]:
    """A temporary place beside ``path``, for a file or a folder, that takes its place once all is written.

    ``durable``: and once it is on the disk itself, so that after a power cut there is the old one or the new one.
    Without ``overwrite`` raises FileExistsError for a file whose name is taken.
    """
    writable(path.parent)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-", ignore_cleanup_errors=True) as nearby:
        unfinished = Path(nearby) / path.name
        yield unfinished
        if durable:
            flush(unfinished)
        previous = Path(nearby) / PREVIOUS
        if path.is_dir():
            path.rename(previous)
        try:
            take_place(unfinished, path, overwrite)
        except BaseException:
            if previous.is_dir():  # else it would go with the temporary place
                previous.rename(path)
            raise
        if durable:
            flush_folder(path.parent)


def remove_folder(folder: Path) -> None:
    """Remove a folder as a whole: nobody ever sees half of it, not even after a power cut."""
    with tempfile.TemporaryDirectory(
        dir=folder.parent, prefix=f".{folder.name}-", ignore_cleanup_errors=True
    ) as nearby:
        folder.rename(Path(nearby) / folder.name)
        flush_folder(folder.parent)


def leftovers(folder: Path) -> list[Path]:
    """The temporary places in a folder: of somebody who writes just now, or of a program that was killed."""
    found = []
    for path in folder.glob(".*-????????"):
        named = UNFINISHED.fullmatch(path.name)
        if named and path.is_dir() and {inner.name for inner in path.iterdir()} <= {named[1], PREVIOUS}:
            found.append(path)
    return found


def tidy(folder: Path, older_than: float = 0.0) -> list[Path]:
    """Remove what programs that were killed left unfinished in a folder; returns what was removed.

    For a place that one had cleared for a new folder, that one is whole, and takes it. Only for who knows that nobody
    writes there now, or of places that are older than so many seconds.
    """
    removed = []
    for nearby in leftovers(folder):
        if time.time() - nearby.stat().st_mtime < older_than:
            continue
        place = folder / nearby.name[1:].rpartition("-")[0]
        waiting = [path for path in (nearby / place.name, nearby / PREVIOUS) if path.exists()]
        if (nearby / PREVIOUS).exists() and not place.exists():
            take_place(waiting[0], place)
            flush_folder(folder)
        shutil.rmtree(nearby, ignore_errors=True)
        removed.append(nearby)
    return removed


def write_text(path: Path, text: str, durable: bool = True) -> None:
    write_bytes(path, text.encode(), durable)


def write_bytes(path: Path, data: bytes, durable: bool = True, overwrite: bool = True) -> None:
    with whole_or_nothing(path, durable, overwrite) as unfinished:
        unfinished.write_bytes(data)


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; raises ValueError, naming the file, if there is none."""
    if not path.is_file():
        raise ValueError(f"there is no {path}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no JSON object")
    return content


def new_folder(parent: Path, name: str) -> Path:
    """Make ``parent/name_00001``, or the first number that nobody has taken: whoever makes it has it."""
    return _take(parent, name, "", Path.mkdir)


@contextmanager
def reserved(parent: Path, name: str, ending: str = "") -> Iterator[Path]:
    """A free, numbered place for a folder, or with an ending (``.safetensors``) for a file, to be replaced inside.

    It is taken by making it, empty; where nothing came into it, it goes again.
    """
    path = _take(writable(parent), name, ending, Path.mkdir if not ending else lambda path: path.touch(exist_ok=False))
    try:
        yield path
    finally:
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
        elif path.is_file() and not path.stat().st_size:
            path.unlink()


def _take(parent: Path, name: str, ending: str, make: Any) -> Path:
    number = 1
    while True:
        path = parent / f"{name}_{number:05d}{ending}"
        try:
            make(path)
        except FileExistsError:
            number += 1
        else:
            flush_folder(parent)
            return path
