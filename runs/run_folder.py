"""What a run leaves behind: a folder that a person wants to open.

::

    workflow.json    the graph, ready for the canvas     prompt.json   what was executed
    run.json         versions, device, seed, status      metrics.jsonl one line a training step
    loss.png         the curves                          samples/      images over time
    rollouts/        teacher-forced | rolled out | diff  model/        the weights, ready to load
    checkpoints/     copies of the model on the way      state/        what a resumed run goes on from
    run.lock         held while a program trains here   notes.json    tags and a note, by people who looked at it
    logs/            what each process said, of several
"""

from __future__ import annotations

import json
import logging
import os
import platform
import re
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from PIL.Image import Image

from ..files.lock import Taken, held, is_held, this_program
from ..files.whole import (
    Unwritable,
    flush,
    flush_folder,
    new_folder,
    tidy,
    whole_or_nothing,
    writable,
    write_text,
)
from ..training.state import FACTS, facts_in
from .pictures.plots import plot_metrics

log = logging.getLogger(__name__)

FOLDERS = {"samples": "samples", "rollout": "rollouts", "inspection": "rollouts"}
"""Kinds of pictures that are kept, and where. ``inspection`` are the frames of recorded rollouts."""

MOST_FILMS = 64
"""Recorded rollouts that are kept a node; web/lib/rollouts/film.js counts the same."""

PICTURE = re.compile(r".+_step_(\d{6,})(_frames)?\.(png|json)")
"""The names of a run's pictures and their facts; whatever else lies in these folders is somebody else's."""

METRICS = "metrics.jsonl"

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
        self.unwritten: list[str] = []
        """Lines of metrics for which there was no room yet."""

    @classmethod
    def create(cls, parent: Path, name: str, facts: Mapping[str, Any]) -> RunFolder:
        """A new, numbered folder; raises ValueError if nothing can be written there."""
        run = cls(new_folder(writable(parent), name))
        run.update(status="running", started=now(), command=sys.argv, id=uuid.uuid4().hex, **facts)
        return run

    @property
    def id(self) -> str:
        """Of the run, wherever its folder is copied to; empty in runs of versions before."""
        return str(self.facts.get("id", ""))

    @property
    def seconds(self) -> float:
        """What the run has taken so far, before it was resumed."""
        found = self.facts.get("seconds", 0.0)
        return float(found) if isinstance(found, (int, float)) else 0.0

    @contextmanager
    def locked(self) -> Iterator[None]:
        """No other program trains here inside. Raises ValueError, saying who it is, if one does already.

        So it does, before anything else, where nothing can be written.
        """
        try:
            writable(self.folder)
        except Unwritable as error:
            why = error.__cause__.strerror if isinstance(error.__cause__, OSError) else error
            raise ValueError(
                f"resume: nothing can be written in {str(self.folder)!r} ({why}): "
                "copy the run's folder to where that is possible, and resume it there"
            ) from error
        try:
            with held(self.folder):
                yield
        except Taken:
            facts = facts_in(self.folder)
            who = facts.get("program") if isinstance(facts.get("program"), dict) else {}
            where = f" (process {who['pid']} on {who.get('host')})" if who and "pid" in who else ""
            raise ValueError(
                f"resume: {self.folder.name!r} is being trained right now{where}: stop that first, or wait for its end"
            ) from None

    def go_on(self, step: int, facts: Mapping[str, Any], run_id: str = "") -> None:
        """Take up a run that has a state after ``step`` updates; what it left of later ones (a crash does) is dropped.

        run.json says when that was; other facts are now those of the newest launch. What a killed program left half
        written goes, and so do pictures that a power cut has emptied; files of others are left alone.
        """
        self.facts = facts_in(self.folder) or ({"id": run_id} if run_id else {})
        self.facts.pop("message", None)
        before = self.facts.get("resumed")
        resumed = [*(before if isinstance(before, list) else []), {"step": step, "started": now()}]
        self.update(**{**facts, "status": "running", "command": sys.argv, "resumed": resumed})
        self.go_back(step)
        for folder in (self.folder, *(path for path in self.folder.iterdir() if path.is_dir())):
            tidy(folder)

    def go_back(self, step: int) -> None:
        """Drop the metrics and pictures of what came after ``step`` updates."""
        self.unwritten.clear()
        kept = [row for row in read_metrics(self.folder) if row["step"] < step]
        write_text(self.folder / METRICS, "".join(map(as_line, kept)))
        for name in set(FOLDERS.values()):
            for path in (self.folder / name).glob("*_step_*"):
                if PICTURE.fullmatch(path.name) and (step_of(path) > step or not path.stat().st_size):
                    path.unlink()

    @property
    def model_folder(self) -> Path:
        return self.folder / "model"

    def update(self, **facts: Any) -> None:
        """Rewrite run.json with these facts added, and who writes it."""
        self.facts.update(facts, program=this_program())
        write_text(self.folder / FACTS, json.dumps(self.facts, indent=2))

    def note(self, **facts: Any) -> None:
        """As :meth:`update`; where the disk is full, the log says so, and nothing else is lost for it."""
        try:
            self.update(**facts)
        except (OSError, ValueError) as error:
            log.warning("%s could not be written: %s", self.folder / FACTS, error)

    def write_json(self, name: str, content: Any) -> None:
        write_text(self.folder / name, json.dumps(content, indent=2))

    def add_metrics(self, rows: list[dict[str, Any]]) -> None:
        """Add lines; those that cannot be written now, as on a full disk, are written with the next ones."""
        self.unwritten += map(as_line, rows)
        path = self.folder / METRICS
        whole = path.stat().st_size if path.is_file() else 0
        try:
            with path.open("a", encoding="utf-8", newline="\n") as file:
                file.writelines(self.unwritten)
        except OSError:
            if path.is_file():
                os.truncate(path, whole)  # half a line would join the next one
            raise
        self.unwritten.clear()

    def flush(self) -> None:
        """Bring the metrics onto the disk: what a state was made from is there when the state is."""
        if (self.folder / METRICS).is_file():
            flush(self.folder / METRICS)
            flush_folder(self.folder)

    def wants(self, kind: str) -> bool:
        return kind in FOLDERS

    def add_picture(self, kind: str, node_id: str, update: int, picture: Image) -> Path:
        """Keep a picture as ``<kind>/<node>_step_000100.png``; returns where."""
        path = self._place(kind, node_id, update).with_suffix(".png")
        save_picture(path, picture)
        return path

    def add_frames(self, node_id: str, update: int, sheet: Image, facts: Mapping[str, Any]) -> tuple[Path, Path]:
        """Keep the sheet of a recorded rollout and its facts side by side; returns where.

        Of a long run 64 moments a node are kept, spread over the run: always the first and the newest.
        """
        place = self._place("inspection", node_id, update)
        image, data = place.with_name(f"{place.name}_frames.png"), place.with_name(f"{place.name}_frames.json")
        save_picture(image, sheet)
        write_text(data, json.dumps(facts), durable=False)
        found = place.parent.glob(f"{name_of(node_id)}_step_*_frames.json")
        films = sorted((path for path in found if PICTURE.fullmatch(path.name)), key=step_of)
        if len(films) > MOST_FILMS:
            crowded = films[most_crowded([step_of(path) for path in films])]
            crowded.unlink()
            crowded.with_suffix(".png").unlink(missing_ok=True)
        return image, data

    def _place(self, kind: str, node_id: str, update: int) -> Path:
        folder = self.folder / FOLDERS[kind]
        folder.mkdir(exist_ok=True)
        return folder / f"{name_of(node_id)}_step_{update:06d}"

    def plot(self) -> Path | None:
        """Draw loss.png: the loss and its parts, and the validation loss if there is one."""
        rows = read_metrics(self.folder)
        names = [name for name in rows[-1] if name.startswith("loss")] if rows else []
        names += ["validation_loss"] if names and any("validation_loss" in row for row in rows) else []
        if not names:
            return None
        path = self.folder / "loss.png"
        save_picture(path, plot_metrics(rows, names))
        return path


class FolderOfAnother(RunFolder):
    """A run's folder as seen by a process that does not write there: the first one does."""

    def __init__(self, folder: Path, facts: Mapping[str, Any]) -> None:
        super().__init__(folder)
        self.facts = dict(facts)

    @contextmanager
    def locked(self) -> Iterator[None]:
        yield

    def go_on(self, step: int, facts: Mapping[str, Any], run_id: str = "") -> None:
        """Done by the first process."""

    def go_back(self, step: int) -> None:
        """Done by the first process."""

    def update(self, **facts: Any) -> None:
        """Done by the first process."""

    def note(self, **facts: Any) -> None:
        """Done by the first process, unless it is gone without a word: then whoever is left says how the run ended."""
        with suppress(OSError, ValueError):
            left = facts_in(self.folder)
            if facts.get("status") == "failed" and left.get("status") == "running" and not is_held(self.folder):
                write_text(self.folder / FACTS, json.dumps({**left, **facts}, indent=2))

    def write_json(self, name: str, content: Any) -> None:
        """Done by the first process."""

    def add_metrics(self, rows: list[dict[str, Any]]) -> None:
        """Done by the first process."""

    def flush(self) -> None:
        """Done by the first process."""

    def wants(self, kind: str) -> bool:
        return False

    def plot(self) -> Path | None:
        return None


def save_picture(path: Path, picture: Image) -> None:
    """Whole, but not flushed: a power cut may cost a picture."""
    with whole_or_nothing(path, durable=False) as unfinished:
        picture.save(unfinished)


def pictures_of(run: Path) -> list[Path]:
    """What sums a run up: the curve and the newest samples, as far as there are any."""
    newest = sorted(run.glob("samples/*.png"))[-1:]
    return [path for path in (run / "loss.png", *newest) if path.is_file()]


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
