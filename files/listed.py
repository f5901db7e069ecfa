"""Files that are listed while another program writes: one may be gone, or renamed, before it is looked at."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path


def still_there(paths: Iterable[Path]) -> Iterator[tuple[Path, os.stat_result]]:
    """Those of ``paths`` that are there, each with its facts; a run's unfinished file is gone a moment later."""
    for path in paths:
        with contextlib.suppress(OSError):
            yield path, path.stat()


def newest_first(paths: Iterable[Path]) -> list[Path]:
    """Those of ``paths`` that are there, by when they were last written."""
    seen = sorted(still_there(paths), key=lambda entry: entry[1].st_mtime, reverse=True)
    return [path for path, _ in seen]
