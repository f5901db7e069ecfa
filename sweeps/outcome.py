"""What came of a sweep: a table, the curves in one picture, and the newest samples side by side."""

from __future__ import annotations

import json
import statistics
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from ..files.whole import write_text
from ..runs.metrics_file import read_metrics
from ..runs.pictures.kept import FOLDERS, PICTURE, save_picture, step_of
from ..runs.pictures.plots import drawn, new_figure, smoothed
from ..runs.run_folder import facts_in
from .grid import labels
from .sweep import Sweep

LAST = 10
"""The end of a curve is the mean of its last tenth: single steps are noise."""
CURVES = ("loss", "validation_loss")
"""Which curves are drawn and ranked, where runs have them."""


@dataclass(frozen=True)
class Outcome:
    """What is known of a variant."""

    number: int
    label: str
    run: Path | None
    status: str
    seconds: float | None
    steps: int
    ends: dict[str, float]
    """Where each curve ended."""
    curves: dict[str, list[tuple[int, float]]]
    picture: Path | None
    """Its newest samples."""


def outcomes(sweep: Sweep) -> list[Outcome]:
    """All variants, as they stand."""
    return [outcome(sweep, number, label) for number, label in enumerate(labels(sweep.variants))]


def outcome(sweep: Sweep, number: int, label: str) -> Outcome:
    run = sweep.run_of(number)
    if run is None:
        return Outcome(number, label, None, "waiting", None, 0, {}, {}, None)
    facts, rows = facts_in(run), read_metrics(run)
    curves = {name: curve for name in CURVES if (curve := points(rows, name))}
    ends = {name: statistics.mean(value for _, value in last(curve)) for name, curve in curves.items()}
    pictures = [path for path in (run / FOLDERS["samples"]).glob("*.png") if PICTURE.fullmatch(path.name)]
    newest = max(pictures, key=step_of, default=None)
    seconds = facts.get("seconds") if isinstance(facts.get("seconds"), (int, float)) else None
    steps = rows[-1]["step"] + 1 if rows else 0
    return Outcome(number, label, run, str(facts.get("status", "unknown")), seconds, steps, ends, curves, newest)


def points(rows: Sequence[dict[str, Any]], name: str) -> list[tuple[int, float]]:
    return [(row["step"], float(row[name])) for row in rows if isinstance(row.get(name), (int, float))]


def last(curve: Sequence[tuple[int, float]]) -> Sequence[tuple[int, float]]:
    return curve[-max(1, len(curve) // LAST) :]


def ranked(found: Sequence[Outcome]) -> list[Outcome]:
    """The best first: by the validation loss if all that ended have one, else by the training loss."""
    ended = [each for each in found if each.ends]
    name = CURVES[1] if ended and all(CURVES[1] in each.ends for each in ended) else CURVES[0]
    return sorted(found, key=lambda each: (name not in each.ends, each.ends.get(name, 0.0), each.number))


def table(found: Sequence[Outcome]) -> str:
    """The variants, the best first, as text in columns."""
    names = [name for name in CURVES if any(name in each.ends for each in found)]
    rows = [["run", "settings", "status", "steps", "seconds", *(name.replace("_", " ") for name in names)]]
    for each in ranked(found):
        seconds = "" if each.seconds is None else f"{each.seconds:.0f}"
        ends = [f"{each.ends[name]:.4g}" if name in each.ends else "" for name in names]
        run = each.run.name if each.run else f"({each.number + 1})"
        rows.append([run, each.label, each.status, str(each.steps), seconds, *ends])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def remarks(found: Sequence[Outcome]) -> list[str]:
    """What the table does not say: what it is sorted by, where that misleads, and settings that change nothing."""
    ended = [each for each in found if each.ends]
    lines = []
    if len(ended) > 1 and not all(CURVES[1] in each.ends for each in ended):
        lines.append(
            "sorted by the training loss, which settings of Rollout and of the losses change by themselves: wire "
            "images into validation, and it is sorted by the loss on these"
        )
    twins: dict[tuple[Any, ...], list[Outcome]] = {}
    for each in ended:
        twins.setdefault(tuple((name, *curve) for name, curve in each.curves.items()), []).append(each)
    for same in twins.values():
        if len(same) > 1:
            which = "; ".join(each.label for each in same)
            lines.append(f"the same losses to the last digit, so what differs between them had no effect: {which}")
    return lines


def conclude(sweep: Sweep) -> str:
    """Write what came of the sweep into its folder; returns the table, and what to know when reading it."""
    found = outcomes(sweep)
    text = "\n".join([table(found), *remarks(found)])
    write_text(sweep.folder / "table.txt", text + "\n")
    results = [{**vars(each), "run": each.run and each.run.name, "picture": None, "curves": None} for each in found]
    kept = [{name: value for name, value in row.items() if value is not None} for row in results]
    write_text(sweep.folder / "results.json", json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
    if any(each.curves for each in found):
        save_picture(sweep.folder / "curves.png", overlaid(found))
    if any(each.picture for each in found):
        save_picture(sweep.folder / "samples.png", side_by_side(found))
    return text


def overlaid(found: Sequence[Outcome]) -> Image.Image:
    """One panel a curve, one line a variant."""
    names = [name for name in CURVES if any(name in each.curves for each in found)]
    figure = new_figure(9, 3.6 * len(names))
    for place, name in enumerate(names):
        axes = figure.add_subplot(len(names), 1, place + 1)
        for each in ranked(found):
            if name in each.curves:
                steps, values = zip(*each.curves[name], strict=True)
                axes.plot(steps, smoothed(values, 0.95), linewidth=1.4, label=each.label)
        axes.set_title(name.replace("_", " "), fontsize=10, loc="left")
        axes.grid(alpha=0.25)
        axes.legend(fontsize=7, frameon=False, ncols=1 + len(found) // 12)
    figure.axes[-1].set_xlabel("training step")
    return drawn(figure)


def side_by_side(found: Sequence[Outcome], across: int = 4) -> Image.Image:
    """The newest samples of each variant under its settings, the best first."""
    shown = [headed(opened(each.picture), each.label) for each in ranked(found) if each.picture is not None]
    width, height = max(picture.width for picture in shown), max(picture.height for picture in shown)
    across = min(across, len(shown))
    sheet = Image.new("RGB", (across * width, -(-len(shown) // across) * height), BACKGROUND)
    for place, picture in enumerate(shown):
        sheet.paste(picture, (place % across * width, place // across * height))
    return sheet


def opened(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        return picture.convert("RGB")


BACKGROUND, INK, SIZE, MARGIN = "#212121", "#dddddd", 12, 6


def headed(picture: Image.Image, text: str) -> Image.Image:
    """The picture with a margin, and text above it in as many lines as its width wants."""
    lines = textwrap.wrap(text, max(12, 2 * picture.width // SIZE))
    top = MARGIN + len(lines) * (SIZE + 4)
    sheet = Image.new("RGB", (picture.width + 2 * MARGIN, top + picture.height + MARGIN), BACKGROUND)
    ImageDraw.Draw(sheet).multiline_text(
        (MARGIN, MARGIN // 2), "\n".join(lines), INK, ImageFont.load_default(SIZE), spacing=4
    )
    sheet.paste(picture, (MARGIN, top))
    return sheet
