"""What a run leaves behind: a folder that a person wants to open.

::

    workflow.json    the graph, ready for the canvas     prompt.json   what was executed
    run.json         versions, device, seed, status      metrics.jsonl one line a training step
    loss.png         the curves                          samples/      images over time
    rollouts/        teacher-forced | rolled out | diff  model/        the weights, ready to load
    checkpoints/     copies of the model on the way      state/        what a resumed run goes on from
"""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from PIL.Image import Image

from ..files.whole import free_folder, read_object, writable, write_text
from .pictures.plots import plot_metrics

FOLDERS = {"samples": "samples", "rollout": "rollouts", "inspection": "rollouts"}
"""Kinds of pictures that are kept, and where. ``inspection`` are the frames of recorded rollouts."""

MOST_FILMS = 64
"""Recorded rollouts that are kept a node; web/lib/film.js counts the same."""

PACKAGES = ("torch", "diffusers", "safetensors", "numpy")


def versions() -> dict[str, str]:
    """The versions of what a run's numbers depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        found[name] = metadata.version(name)
    return found


class RunFolder:
    """Writes a run's folder as the run goes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.facts: dict[str, Any] = {}

    @classmethod
    def create(cls, parent: Path, name: str, facts: Mapping[str, Any]) -> RunFolder:
        """A new, numbered folder; raises ValueError if nothing can be written there."""
        folder = free_folder(writable(parent), name)
        folder.mkdir()
        run = cls(folder)
        run.update(status="running", started=now(), command=sys.argv, **facts)
        return run

    def go_on(self, step: int, facts: Mapping[str, Any]) -> None:
        """Take up a run that has a state after ``step`` updates; what it left of later ones (a crash does) is dropped.

        run.json says when that was; other facts are now those of the newest launch.
        """
        self.facts = read_object(self.folder / "run.json")
        self.facts.pop("message", None)
        resumed = [*self.facts.get("resumed", []), {"step": step, "started": now()}]
        self.update(**{**facts, "status": "running", "command": sys.argv, "resumed": resumed})
        kept = [row for row in read_metrics(self.folder) if row["step"] < step]
        write_text(self.folder / "metrics.jsonl", "".join(map(as_line, kept)))
        for name in set(FOLDERS.values()):
            for path in (self.folder / name).glob("*_step_*"):
                if step_of(path) > step:
                    path.unlink()

    @property
    def model_folder(self) -> Path:
        return self.folder / "model"

    def update(self, **facts: Any) -> None:
        """Rewrite run.json with these facts added."""
        self.facts.update(facts)
        write_text(self.folder / "run.json", json.dumps(self.facts, indent=2))

    def write_json(self, name: str, content: Any) -> None:
        write_text(self.folder / name, json.dumps(content, indent=2))

    def add_metrics(self, rows: list[dict[str, Any]]) -> None:
        with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.writelines(map(as_line, rows))

    def wants(self, kind: str) -> bool:
        return kind in FOLDERS

    def add_picture(self, kind: str, node_id: str, update: int, picture: Image) -> Path:
        """Keep a picture as ``<kind>/<node>_step_000100.png``; returns where."""
        path = self._place(kind, node_id, update).with_suffix(".png")
        picture.save(path)
        return path

    def add_frames(self, node_id: str, update: int, sheet: Image, facts: Mapping[str, Any]) -> tuple[Path, Path]:
        """Keep the sheet of a recorded rollout and its facts side by side; returns where.

        Of a long run 64 moments a node are kept, spread over the run: always the first and the newest.
        """
        place = self._place("inspection", node_id, update)
        image, data = place.with_name(f"{place.name}_frames.png"), place.with_name(f"{place.name}_frames.json")
        sheet.save(image)
        write_text(data, json.dumps(facts))
        films = sorted(place.parent.glob(f"{name_of(node_id)}_step_*_frames.json"), key=step_of)
        if len(films) > MOST_FILMS:
            crowded = films[most_crowded([step_of(path) for path in films])]
            crowded.unlink()
            crowded.with_suffix(".png").unlink()
        return image, data

    def _place(self, kind: str, node_id: str, update: int) -> Path:
        folder = self.folder / FOLDERS[kind]
        folder.mkdir(exist_ok=True)
        return folder / f"{name_of(node_id)}_step_{update:06d}"

    def plot(self) -> Path | None:
        """Draw loss.png: the loss and its parts."""
        rows = read_metrics(self.folder)
        names = [name for name in rows[-1] if name.startswith("loss")] if rows else []
        if not names:
            return None
        path = self.folder / "loss.png"
        plot_metrics(rows, names).save(path)
        return path


def name_of(node_id: str) -> str:
    """A node's id in a file's name; those in subgraphs (7:3) make trouble on some systems."""
    return node_id.replace(":", "-")


def step_of(path: Path) -> int:
    """The training step in the name of a picture or its facts."""
    return int(path.stem.rpartition("_step_")[2].split("_")[0])


def most_crowded(moments: list[int]) -> int:
    """The place of the moment whose neighbours are closest to each other, the oldest of several; never an end."""
    gaps = [after - before for before, after in zip(moments, moments[2:], strict=False)]
    return 1 + gaps.index(min(gaps))


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def as_line(row: Mapping[str, Any]) -> str:
    return json.dumps(row) + "\n"


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl; empty where there is none. One that a crash cut short does not count."""
    path = folder / "metrics.jsonl"
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]
