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
import platform
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
    new_folder,
    tidy,
    writable,
    write_text,
)
from ..training.state import FACTS, facts_in
from .metrics_file import MetricsFile, read_metrics
from .pictures.kept import FOLDERS, KeptPictures, save_picture
from .pictures.plots import plot_metrics

log = logging.getLogger(__name__)

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
        self.metrics, self.pictures = MetricsFile(folder), KeptPictures(folder)

    @classmethod
    def create(cls, parent: Path, name: str, facts: Mapping[str, Any]) -> RunFolder:
        """A new, numbered folder; raises ValueError if nothing can be written there."""
        run = cls(new_folder(writable(parent), name))
        run.update(status="running", started=now(), command=sys.argv, id=uuid.uuid4().hex, **facts)
        return run

    @property
    def id(self) -> str:
        """The run's id, which stays when its folder is copied; empty in runs of versions before."""
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
        self.metrics.go_back(step)
        self.pictures.go_back(step)

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
        self.metrics.add(rows)

    def flush(self) -> None:
        self.metrics.flush()

    def wants(self, kind: str) -> bool:
        return kind in FOLDERS

    def add_picture(self, kind: str, node_id: str, update: int, picture: Image) -> Path:
        return self.pictures.add(kind, node_id, update, picture)

    def add_frames(self, node_id: str, update: int, sheet: Image, facts: Mapping[str, Any]) -> tuple[Path, Path]:
        return self.pictures.add_frames(node_id, update, sheet, facts)

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

    def _nothing(self, *args: Any, **facts: Any) -> None:
        """Done by the first process."""

    go_on = go_back = update = write_json = add_metrics = flush = plot = _nothing

    def note(self, **facts: Any) -> None:
        """Done by the first process, unless it is gone without a word: then whoever is left says how the run ended."""
        with suppress(OSError, ValueError):
            left = facts_in(self.folder)
            if facts.get("status") == "failed" and left.get("status") == "running" and not is_held(self.folder):
                write_text(self.folder / FACTS, json.dumps({**left, **facts}, indent=2))

    def wants(self, kind: str) -> bool:
        return False


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
