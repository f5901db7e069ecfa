"""Where shards are: tar files on a disk or at any URL that fsspec opens, found, told apart, and read in parts.

The parts that make up a batch are asked for together, so that a store far away serves them at the same time. Nothing
is held open between batches, however many shards and threads there are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..encodings.cache import key_of

ENDING = ".tar"
GLOB = re.compile(r"[*\[]")
"""What makes a pattern of a path; not the question mark, which URLs have."""
STAMPS = (
    *("size", "mtime", "ETag", "etag", "md5Hash", "content_md5", "Content-MD5", "Digest"),
    *("LastModified", "last_modified", "Last-Modified", "updated", "created"),
)
"""What file systems tell of a file, by their several names: the same values are the same file."""
AT_A_TIME = 16
"""Shards that are asked for at the same time."""


class Part(NamedTuple):
    """Some bytes of a shard."""

    shard: int
    start: int
    length: int


@dataclass(frozen=True)
class Shards:
    """Files of one file system, in their order."""

    files: Any
    """fsspec's file system."""
    paths: tuple[str, ...]
    sizes: tuple[int, ...]
    """Bytes of each."""
    keys: tuple[str, ...]
    """A short name of each, by where it is, its size and what else tells that it has not changed."""

    def read(self, parts: Sequence[Part]) -> list[bytes]:
        """Those bytes. Raises OSError where they cannot be read now, ValueError where they never can."""
        if not parts:
            return []
        paths = [self.paths[part.shard] for part in parts]
        starts = [part.start for part in parts]
        ends = [part.start + part.length for part in parts]
        found = self.files.cat_ranges(paths, starts, ends, on_error="return")
        for path, part, data in zip(paths, parts, found, strict=True):
            if isinstance(data, BaseException):
                raise OSError(f"cannot read {path}: {in_a_line(data)}") from data
            if len(data) > part.length:
                raise ValueError(f"cannot read {path}: its server does not serve parts of files (HTTP ranges)")
            if len(data) < part.length:
                raise OSError(f"cannot read {path}: it has become shorter since it was indexed, or is cut off")
        return found  # type: ignore[no-any-return]


def shards_at(text: str) -> Shards:
    """The tar files that a person means: a path, a folder of them, a pattern (``*``), a URL, or many (``{000..099}``).

    Raises ValueError, naming it, where there is none, or what opens such a URL is not installed.
    """
    if not text.strip():
        raise ValueError("shards: name the tar files: a folder, a pattern such as data/*.tar, or a URL")
    paths: list[str] = []
    for place in expanded(text.strip()):
        files, path = opened(place)
        paths += found_at(files, path)
    paths = list(dict.fromkeys(paths))
    if not paths:
        raise ValueError(f"shards: there is no {ENDING} file at {text.strip()!r}")
    infos = facts_of(files, paths)
    return Shards(
        files,
        tuple(paths),
        tuple(info["size"] for info in infos),
        tuple(key_of(files.unstrip_protocol(path), stamp_of(info)) for path, info in zip(paths, infos, strict=True)),
    )


def expanded(text: str) -> Iterator[str]:
    """Each place that is meant, in order: braces as shells expand them."""
    if "{" not in text:
        yield text
        return
    try:
        from braceexpand import UnbalancedBracesError, braceexpand  # type: ignore[attr-defined]
    except ImportError:
        raise ValueError("shards: braces need a package: pip install comfyui-rollout[shards]") from None
    try:
        yield from braceexpand(text, escape=False)  # Windows' paths have backslashes
    except UnbalancedBracesError:
        raise ValueError(f"shards: a brace is not closed in {text!r}") from None


def opened(place: str) -> tuple[Any, str]:
    """The file system of a place, and the path there."""
    from fsspec.core import url_to_fs

    try:
        files, path = url_to_fs(place)
    except (ImportError, ValueError) as error:  # such as: Install s3fs to access S3
        raise ValueError(f"shards: cannot open {place!r}: {in_a_line(error)}") from error
    return files, path


def found_at(files: Any, path: str) -> list[str]:
    """The shards of a pattern or below a folder, sorted by name; or the path itself."""
    try:
        if GLOB.search(path) and not files.exists(path):
            return [each for each in sorted(files.glob(path)) if each.endswith(ENDING)]
        if not path.endswith(ENDING) and files.isdir(path):
            return sorted(files.glob(f"{path.rstrip('/')}/**/*{ENDING}"))
    except Exception as error:  # each file system has errors of its own
        raise ValueError(f"shards: cannot look into {path!r}: {in_a_line(error)}") from error
    return [path]


def facts_of(files: Any, paths: Sequence[str]) -> list[dict[str, Any]]:
    """What the file system knows of each file; raises ValueError, naming the first, where some are not there."""

    def one(path: str) -> dict[str, Any] | Exception:
        try:
            return files.info(path)  # type: ignore[no-any-return]
        except Exception as error:  # each file system has errors of its own
            return error

    with ThreadPoolExecutor(AT_A_TIME) as pool:
        infos = list(pool.map(one, paths))
    wrong = [(path, info) for path, info in zip(paths, infos, strict=True) if isinstance(info, Exception)]
    if wrong:
        path, error = wrong[0]
        more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        if isinstance(error, FileNotFoundError):
            raise ValueError(f"shards: there is no {path!r}{more}")
        raise ValueError(f"shards: cannot reach {path!r}{more}: {in_a_line(error)}")
    known = [info for info in infos if isinstance(info, dict)]
    for path, info in zip(paths, known, strict=True):
        if info.get("type") == "directory":
            raise ValueError(f"shards: {path!r} is a folder without {ENDING} files")
        if info.get("size") is None:
            raise ValueError(f"shards: the server does not tell how long {path!r} is, so no part of it can be read")
        if info.get("partial") is False:  # as HTTP servers say it
            raise ValueError(f"shards: the server of {path!r} does not serve parts of files (HTTP ranges); use another")
    return known


def stamp_of(info: dict[str, Any]) -> list[tuple[str, str]]:
    return [(name, str(info[name])) for name in STAMPS if info.get(name) is not None]


def in_a_line(error: BaseException) -> str:
    """What an error says, as one line."""
    return " ".join(str(error).split()) or type(error).__name__
