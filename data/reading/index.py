"""What was found out about the files of a large folder, kept between starts: each is looked at once, until it changes.

A file is the one that was looked at if its size and its times are the same. One that was written so shortly before
that its next change could have the same time (two seconds on FAT) is looked at again, as Git does.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from ...files.whole import write_text

log = logging.getLogger(__name__)

LEAST = 1000
"""Fewer files are looked at in no time, and have no index."""
TICK = 2_000_000_000
"""Nanoseconds between two times that every file system tells apart."""
FORMAT = 1

Found = TypeVar("Found")


def stamp_of(path: Path) -> list[int]:
    """Size, and when it was changed: its bytes, and anything at all (on Windows: when it was made). Empty if it is not
    there, of which the look says more."""
    try:
        facts = path.stat()
    except OSError:
        return []
    return [facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns]


def index_of(folder: Path, what: str, indexes: Path | None) -> Path | None:
    """The file in ``indexes`` that keeps this of the files in a folder; None where nothing is kept."""
    if indexes is None:
        return None
    place = hashlib.blake2b(str(folder.resolve()).encode(errors="surrogatepass"), digest_size=8).hexdigest()
    return indexes / f"{place}-{what}.json"


def looked_up(
    paths: Sequence[Path], look: Callable[[Path], Found], keeps: Callable[[Found], bool], index: Path | None, by: str
) -> list[Any]:
    """``look`` of each path, as it is or as JSON has it: from the file ``index`` where the path has not changed since.

    What ``keeps`` says no to is looked at again the next time. ``by`` names what the results depend on beside the
    files: an index by another, or one that is damaged, is none.
    """
    if index is None or len(paths) < LEAST:
        return in_parallel(look, paths)
    known, now = read_index(index, by), time.time_ns()
    stamps = {str(path): stamp_of(path) for path in paths}
    there = {name for name, stamp in stamps.items() if stamp and name in known and known[name][0] == stamp}
    new = [path for path in paths if str(path) not in there]
    looked = {str(path): found for path, found in zip(new, in_parallel(look, new), strict=True)}
    kept = {name: known[name] for name in stamps if name in there} | {
        name: [stamps[name], found]
        for name, found in looked.items()
        if stamps[name] and max(stamps[name][1:]) < now - TICK and keeps(found)
    }
    if looked or len(kept) < len(known):
        write_index(index, by, kept)
    return [looked[name] if name in looked else known[name][1] for name in map(str, paths)]


def in_parallel(look: Callable[[Path], Found], paths: Sequence[Path]) -> list[Found]:
    with ThreadPoolExecutor() as pool:
        return list(pool.map(look, paths))


def read_index(index: Path, by: str) -> Mapping[str, Any]:
    """What an index holds; nothing where it is missing, damaged, or by another."""
    try:
        digest, said, text = index.read_text(encoding="utf-8").split("\n", 2)
        if said == by and digest == digest_of(by, text):
            content: Mapping[str, Any] = json.loads(text)
            return content
    except (OSError, ValueError):
        pass
    return {}


def write_index(index: Path, by: str, content: Mapping[str, Any]) -> None:
    """Whole or not at all; where it cannot be written, the next start takes as long as this one."""
    text = json.dumps(content, separators=(",", ":"))
    try:
        write_text(index, "\n".join((digest_of(by, text), by, text)), durable=False)
    except (OSError, ValueError) as error:
        log.info("the index of a folder could not be kept: %s", error)


def digest_of(by: str, text: str) -> str:
    return hashlib.blake2b(f"{FORMAT}\n{by}\n{text}".encode(), digest_size=16).hexdigest()
