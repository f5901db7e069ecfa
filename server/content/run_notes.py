"""Tags and a note of a person on a run, read with suspicion and changed behind nobody's back."""

import json
import threading
import unicodedata
from pathlib import Path
from typing import Any

from ...files.names import TURNING
from ...files.notes import FILE, LONGEST_NOTE, LONGEST_TAG, MOST_TAGS, write

LARGEST_FILE = 64 * 1024
"""Bytes; a file of that name that is longer is none of ours."""

NOTHING: dict[str, Any] = {"tags": [], "note": ""}
_writing = threading.Lock()  # between looking what is there and taking its place


class Conflict(Exception):
    """The notes are no longer what they were when the edit began; ``now`` is what they are."""

    def __init__(self, now: dict[str, Any]) -> None:
        super().__init__("the notes of the run were changed meanwhile")
        self.now = now


def read_notes(folder: Path) -> dict[str, Any]:
    """``{"tags": [...], "note": ...}`` of a run; empty ones where there are none, or what is there is damaged."""
    path = folder / FILE
    try:
        if path.is_symlink() or path.stat().st_size > LARGEST_FILE:
            return dict(NOTHING)
        return clean(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError):
        return dict(NOTHING)


def write_notes(folder: Path, notes: Any, was: Any) -> dict[str, Any]:
    """Write them, whole; ``was`` is what the editor saw. Returns what is there now.

    Raises ValueError for what are no notes, FileNotFoundError without a folder, and Conflict if the file holds
    something else by now.
    """
    notes, was = clean(notes), clean(was)
    with _writing:
        if not folder.is_dir():  # deleted meanwhile: not to be made again
            raise FileNotFoundError(folder)
        now = read_notes(folder)
        if now not in (was, notes):
            raise Conflict(now)
        if notes != now:
            write(folder, notes)
    return notes


def clean(found: Any) -> dict[str, Any]:
    """Notes as they are kept: tags in one line each, none twice, nothing that cannot be printed. Raises ValueError."""
    tags, note = (found.get("tags"), found.get("note")) if isinstance(found, dict) else (None, None)
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags) or not isinstance(note, str):
        raise ValueError("notes need tags, a list of texts, and note, a text")
    kept: dict[str, str] = {}
    for tag in filter(None, map(plain, tags)):
        kept.setdefault(tag.casefold(), tag)
    tags = list(kept.values())
    note = "\n".join(plain(line, squeezes=False) for line in note.splitlines()).strip()
    if len(tags) > MOST_TAGS or any(len(tag) > LONGEST_TAG for tag in tags):
        raise ValueError(f"a run has at most {MOST_TAGS} tags of {LONGEST_TAG} letters")
    if len(note) > LONGEST_NOTE:
        raise ValueError(f"a note has at most {LONGEST_NOTE} letters")
    return {"tags": tags, "note": note}


def plain(text: str, squeezes: bool = True) -> str:
    """One line without control characters, halves of surrogate pairs and marks that turn the direction of writing."""
    seen = "".join(" " if letter.isspace() else letter for letter in text)
    seen = "".join(letter for letter in TURNING.sub("", seen) if unicodedata.category(letter) not in ("Cc", "Cs"))
    return " ".join(seen.split()) if squeezes else seen.rstrip()
