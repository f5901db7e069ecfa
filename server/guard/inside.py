"""The one way from a name that a browser sent to a path on this machine."""

from pathlib import Path
from urllib.parse import unquote

from ...files.names import trouble_with_name, trouble_with_part

LONGEST_PATH = 2000  # characters
LONGEST_SHOWN = 60  # characters of a name in a message
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
    path = followed(folder / relative, folder)
    if path is None:
        raise Outside(f"{relative!r} leads out of its folder")
    return path


def followed(path: Path, folder: Path) -> Path | None:
    """Where links lead from a path; None for what lies outside of ``folder`` then, or goes in a circle of links."""
    try:
        path, base = path.resolve(), folder.resolve()
    except (OSError, RuntimeError):
        return None
    return path if path.is_relative_to(base) else None


def _readings(name: str) -> list[str]:
    """The name as it is, and as it would look to somebody who decodes it again and again."""
    readings = [name]
    while (decoded := unquote(readings[-1])) != readings[-1]:
        if len(readings) > MOST_ENCODINGS:
            raise Outside("the name is encoded too often")
        readings.append(decoded)
    return readings


def _check(part: str) -> None:
    if reason := trouble_with_part(part):
        raise Outside(f"{shown(part)} {reason}")


def new_inside(folder: Path, relative: str) -> Path:
    """As `inside`, for what is to be written: a name that is new there must be one that every system can write."""
    path = inside(folder, relative)
    if not path.exists() and (reason := trouble_with_name(relative.rsplit("/", 1)[-1])):
        raise Outside(f"{shown(relative)} {reason}")
    return path


def shown(name: str) -> str:
    """A name as a message quotes it."""
    return ascii(name) if len(name) <= LONGEST_SHOWN else f"{name[:LONGEST_SHOWN]!a}..."
