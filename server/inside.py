"""The one way from a name that a browser sent to a path on this machine."""

import re
from pathlib import Path
from urllib.parse import unquote

CONTROL = re.compile(r"[\x00-\x1f\x7f]")
DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$)(\..*)?", re.IGNORECASE)
LONGEST_PART = 255  # bytes, of common file systems
LONGEST_PATH = 2000  # characters
MOST_ENCODINGS = 8


class Outside(ValueError):
    """A name that leads out of its folder, or that some system would read as something else than a plain path."""


def inside(folder: Path, relative: str) -> Path:
    """The path of ``relative`` below ``folder``, with links followed; it need not exist.

    Raises Outside unless every part is a plain name, on Windows too and however often the name is percent-decoded, and
    the path that remains after following links is still below ``folder``.
    """
    if len(relative) > LONGEST_PATH:
        raise Outside("the name is too long")
    for reading in _readings(relative):
        for part in reading.split("/"):
            _check(part)
    base = folder.resolve()
    try:
        path = (base / relative).resolve()
    except (OSError, RuntimeError) as error:  # a circle of links
        raise Outside(f"{relative!r} cannot be followed") from error
    if not path.is_relative_to(base):
        raise Outside(f"{relative!r} leads out of its folder")
    return path


def _readings(name: str) -> list[str]:
    """The name as it is, and as it would look to somebody who decodes it again and again."""
    readings = [name]
    while (decoded := unquote(readings[-1])) != readings[-1]:
        if len(readings) > MOST_ENCODINGS:
            raise Outside("the name is encoded too often")
        readings.append(decoded)
    return readings


def _check(part: str) -> None:
    if part in ("", ".", ".."):
        raise Outside("a name must be a relative path of plain names")
    if CONTROL.search(part) or "\\" in part or ":" in part:
        raise Outside(f"{part!r} holds a character that is not allowed in a name")
    if part.endswith((".", " ")) or DEVICES.fullmatch(part.rstrip(" .")):
        raise Outside(f"{part!r} means something else on some systems")
    try:
        size = len(part.encode())
    except UnicodeEncodeError as error:
        raise Outside("a name must be valid text") from error
    if size > LONGEST_PART:
        raise Outside("a part of the name is too long")
