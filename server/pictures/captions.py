"""The caption beside a picture: read in any usual encoding, and never overwritten behind somebody's back."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from ...files.text import decoded
from ...files.whole import write_bytes
from ..guard.inside import followed

SUFFIXES = (".txt", ".caption")
LONGEST = 20_000  # letters
ABSENT = ""
"""The version of a caption that is not there."""
FOREIGN = "foreign"
"""The version of a caption that is a link out of its data set: what is there is neither shown nor written over."""


@dataclass(frozen=True)
class Caption:
    text: str
    version: str
    """Names this very content of the file, so that an edit of an older one can be told."""


class BadCaption(ValueError):
    """A text that is no caption."""


class Conflict(Exception):
    """The caption is no longer what it was when the edit began; ``now`` is what it is."""

    def __init__(self, now: Caption) -> None:
        super().__init__("the caption was changed meanwhile")
        self.now = now


def caption_path(picture: Path) -> Path:
    """Where the caption is, or would be."""
    beside = (picture.with_suffix(suffix) for suffix in SUFFIXES)
    return next((path for path in beside if path.is_file()), picture.with_suffix(SUFFIXES[0]))


def read_caption(picture: Path, folder: Path) -> Caption:
    """The caption of a picture in the data set ``folder``."""
    try:
        path = caption_path(picture)
        if followed(path, folder) is None:
            return Caption("", FOREIGN)
        data = path.read_bytes()
    except OSError:  # not there, or in a folder that may be listed and not entered
        return Caption("", ABSENT)
    try:
        text = decoded(data).text
    except ValueError:  # shown as well as can be; write_caption leaves the file alone
        text = data.decode("cp1252", errors="replace")
    return Caption(text.strip(), hashlib.sha256(data).hexdigest()[:16])


def write_caption(picture: Path, folder: Path, text: str, was: str) -> Caption:
    """Write the caption in UTF-8; an empty one has no file. ``was`` is the version that the editor saw.

    Raises Conflict if the file holds something else by now, and BadCaption for what is none.
    """
    text = text.replace("\r\n", "\n").strip()
    if len(text) > LONGEST or "\0" in text:
        raise BadCaption(f"a caption has at most {LONGEST} letters, and no zero bytes")
    now, path = read_caption(picture, folder), caption_path(picture)
    if now.version == FOREIGN:
        raise BadCaption(f"{path.name} is a link to a file outside of this folder: edit it where it is")
    if now.version != was and now.text != text:
        raise Conflict(now)
    if text == now.text:
        return now
    refuse_unreadable(path)
    if text:
        write_bytes(path, text.encode())
    else:
        path.unlink(missing_ok=True)
    return read_caption(picture, folder)


def refuse_unreadable(path: Path) -> None:
    """Raises BadCaption for a file whose encoding cannot be told: an edit of what was misread would spoil it."""
    try:
        decoded(path.read_bytes() if path.is_file() else b"")
    except ValueError as error:
        raise BadCaption(f"{path.name} {error}: save it as UTF-8 first") from None
