"""Files that are whole or not there: written beside their place and then moved; and reading JSON."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def writable(folder: Path) -> Path:
    """The folder, made if need be; raises ValueError if nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        reason = error.strerror or error
        raise ValueError(f"cannot write in {str(folder)!r} ({reason}): choose another output folder") from error


@contextmanager
def whole_or_nothing(path: Path) -> Iterator[Path]:
    """A temporary place beside ``path``, for a file or a folder, that takes its place once all is written."""
    writable(path.parent)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as nearby:
        unfinished = Path(nearby) / path.name
        yield unfinished
        previous = Path(nearby) / "previous"
        if path.is_dir():
            path.rename(previous)
        try:
            os.replace(unfinished, path)
        except BaseException:
            if previous.is_dir():  # else it would go with the temporary place
                previous.rename(path)
            raise


def write_text(path: Path, text: str) -> None:
    with whole_or_nothing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; raises ValueError, naming the file, if there is none."""
    if not path.is_file():
        raise ValueError(f"there is no {path}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no JSON object")
    return content


def free_folder(parent: Path, name: str) -> Path:
    """``parent/name_00001``, or the first number that is not taken."""
    number = 1
    while (folder := parent / f"{name}_{number:05d}").exists():
        number += 1
    return folder


def free_file(parent: Path, name: str) -> Path:
    """``parent/name_00001.safetensors``, or the first number that is not taken."""
    number = 1
    while (path := parent / f"{name}_{number:05d}.safetensors").exists():
        number += 1
    return path
