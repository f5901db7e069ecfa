"""A run's metrics.jsonl: one line a training step, read while it grows and whole after a crash."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..files.whole import flush, flush_folder, write_text

METRICS = "metrics.jsonl"


class MetricsFile:
    """Writes the metrics of a run into its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / METRICS
        self.unwritten: list[str] = []
        """Lines for which there was no room yet."""

    def add(self, rows: list[dict[str, Any]]) -> None:
        """Add lines; those that cannot be written now, as on a full disk, are written with the next ones."""
        self.unwritten += map(as_line, rows)
        whole = self.path.stat().st_size if self.path.is_file() else 0
        try:
            with self.path.open("a", encoding="utf-8", newline="\n") as file:
                file.writelines(self.unwritten)
        except OSError:
            if self.path.is_file():
                os.truncate(self.path, whole)  # half a line would join the next one
            raise
        self.unwritten.clear()

    def go_back(self, step: int) -> None:
        """Drop the lines of what came after ``step`` updates."""
        self.unwritten.clear()
        kept = [row for row in read_metrics(self.folder) if row["step"] < step]
        write_text(self.path, "".join(map(as_line, kept)))

    def flush(self) -> None:
        """Bring the lines onto the disk: what a state was made from is there when the state is."""
        if self.path.is_file():
            flush(self.path)
            flush_folder(self.folder)


def as_line(row: Mapping[str, Any]) -> str:
    return json.dumps(row) + "\n"


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl; empty where there is none. One that a crash cut short does not count."""
    path = folder / METRICS
    if not path.is_file():
        return []
    rows = (row_in(line) for line in path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True))
    return [row for row in rows if row is not None]


def row_in(line: str) -> dict[str, Any] | None:
    """The row in a line; None where it is no whole one, wherever it stands."""
    try:
        row = json.loads(line) if line.endswith("\n") else None
    except ValueError:
        return None
    return row if isinstance(row, dict) and isinstance(row.get("step"), int) else None
