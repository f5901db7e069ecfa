"""How every benchmark ends: a table, then one line of JSON with figures and bounds, exit code 1 on a missed bound."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence

import torch


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows under their columns."""
    cells = [list(columns)]
    cells += [[f"{value:.3g}" if isinstance(value, float) else str(value) for value in row] for row in rows]
    widths = [max(len(row[place]) for row in cells) for place in range(len(columns))]
    for row in cells:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))


def machine() -> str:
    """The kind of machine, for a figure means little without it."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    return f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def conclude(figures: Mapping[str, float], at_most: Mapping[str, float], at_least: Mapping[str, float]) -> int:
    """Print the line of JSON; returns the exit code."""
    missed = [name for name, bound in at_most.items() if figures[name] > bound]
    missed += [name for name, bound in at_least.items() if figures[name] < bound]
    rounded = {name: round(value, 4) for name, value in figures.items()}
    line = {"machine": machine(), "figures": rounded, "at_most": dict(at_most), "at_least": dict(at_least)}
    print(json.dumps({**line, "missed": missed}))
    return 1 if missed else 0
