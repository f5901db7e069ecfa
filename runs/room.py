"""Room on the disk: looked at before each save, and waited for where there is none."""

from __future__ import annotations

import errno
import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from ..files.full import is_full

log = logging.getLogger(__name__)

MARGIN = 1 << 16
"""Bytes that a save takes beside its tensors: names, folders, headers."""
LOOK_EVERY = 1.0
"""Seconds between two looks whether there is room now."""


class NoRoom(OSError):
    """The disk is full; the message says where, and how much is missing."""

    def __str__(self) -> str:
        """Without the number of the error, which says nothing to people."""
        return self.strerror or ""


def with_room(
    folder: Path,
    what: str,
    need: int,
    write: Callable[[], None],
    *,
    wait: bool,
    interrupted: Callable[[], None] = lambda: None,
    kept: str = "",
) -> None:
    """Call ``write`` once ``need`` bytes are free, as often as it takes where the disk is full all the same.

    With ``wait`` one line says what is missing, and it goes on as soon as there is room; ``interrupted()`` is asked
    meanwhile, and may raise. Without, raises NoRoom. ``kept`` says what is safe.
    """
    told = False
    while True:
        missing = need + MARGIN - free_in(folder)
        if missing <= 0:
            try:
                return write()
            except Exception as error:
                if not is_full(error):
                    raise
        words = f"no room for {what}: it takes {megabytes(need)}, and {megabytes(free_in(folder))} are free in {folder}"
        if not wait:
            raise NoRoom(errno.ENOSPC, "; ".join(part for part in (words, kept) if part))
        if not told:
            log.warning("%s; waiting until there is room. %s", words, kept)
            told = True
        interrupted()
        time.sleep(LOOK_EVERY)


def free_in(folder: Path) -> int:
    """Bytes that may still be written in a folder, or would be if it were there."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.is_dir())
    return shutil.disk_usage(there).free


def megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
