"""Removing what killed programs have left half written."""

from __future__ import annotations

import os
from pathlib import Path

from ..files.lock import is_held
from ..files.whole import tidy
from .run_folder import FACTS

OLD = 3600.0
"""Seconds after which something unfinished that lies in no run belongs to no program any more."""


def clean(output: Path) -> list[Path]:
    """Remove what is left unfinished in an output folder; returns what was. Runs that are under way are left alone."""
    removed: list[Path] = []
    for name, below, _ in os.walk(output):
        folder = Path(name)
        if (folder / FACTS).is_file() and not is_free(folder):
            below.clear()
            continue
        is_run = (folder / FACTS).is_file() or (folder.parent / FACTS).is_file()
        removed += tidy(folder, older_than=0.0 if is_run else OLD)
        below[:] = [inner for inner in below if not inner.startswith(".")]
    return removed


def is_free(run: Path) -> bool:
    """Whether no program trains in a run's folder, as far as one may know: not where nothing can be written."""
    try:
        return not is_held(run)
    except OSError:
        return False
