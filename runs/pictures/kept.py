"""The pictures that a run keeps, named by node and step: ``samples/`` and ``rollouts/``."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL.Image import Image

from ...files.whole import whole_or_nothing, write_text

FOLDERS = {"samples": "samples", "rollout": "rollouts", "inspection": "rollouts"}
"""Kinds of pictures that are kept, and where. ``inspection`` are the frames of recorded rollouts."""

MOST_FILMS = 64
"""Recorded rollouts that are kept a node; web/lib/rollouts/film.js counts the same."""

PICTURE = re.compile(r".+_step_(\d{6,})(_frames)?\.(png|json)")
"""The names of a run's pictures and their facts; whatever else lies in these folders is somebody else's."""


class KeptPictures:
    """Writes pictures into a run's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, kind: str, node_id: str, update: int, picture: Image) -> Path:
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

    def go_back(self, step: int) -> None:
        """Drop what came after ``step`` updates, and what a power cut has emptied."""
        for name in set(FOLDERS.values()):
            for path in (self.folder / name).glob("*_step_*"):
                if PICTURE.fullmatch(path.name) and (step_of(path) > step or not path.stat().st_size):
                    path.unlink()

    def _place(self, kind: str, node_id: str, update: int) -> Path:
        folder = self.folder / FOLDERS[kind]
        folder.mkdir(exist_ok=True)
        return folder / f"{name_of(node_id)}_step_{update:06d}"


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
