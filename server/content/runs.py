"""The folders that training runs leave behind."""

import contextlib
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ...files.listed import still_there
from ...files.lock import LOCK, is_held
from ...files.notes import FILE as NOTES
from ..guard.inside import Outside, inside
from .files import walk
from .run_notes import read_notes

FACTS = "run.json"
QUIET = 60.0
"""Seconds after which a run that says it is running, in a program that we do not know, is taken for dead."""
MOST_RUNS = 1000


@dataclass(frozen=True)
class OwnJobs:
    """What a server knows of runs from its own jobs; all in seconds since 1970."""

    live_since: float | None = None
    """When the running job began, if there is one."""
    died: Sequence[tuple[float, float]] = ()
    """From when to when jobs ran whose server died with them."""


def list_runs(runs: Path, own: OwnJobs) -> list[dict[str, Any]]:
    """The runs below a folder, newest first."""
    if not runs.is_dir():
        return []
    found = still_there(path / FACTS for path in runs.iterdir() if not path.is_symlink())
    newest = sorted(found, key=lambda entry: entry[1].st_ctime, reverse=True)[:MOST_RUNS]
    listed = [describe_run(path.parent, own) for path, _ in newest]
    return sorted(listed, key=lambda run: str(run.get("started", "")), reverse=True)


def describe_run(folder: Path, own: OwnJobs) -> dict[str, Any]:
    """The facts of run.json, and what there is to see; ``status`` is "stopped" for a run that died unnoticed."""
    facts = read_facts(folder)
    if facts.get("status") == "running" and not is_live(folder, own):
        facts["status"] = "stopped"
    has_workflow = (folder / "workflow.json").is_file()
    has_state = (folder / "state" / "state.json").is_file()
    return facts | {
        **read_notes(folder),
        "name": folder.name,
        "has_workflow": has_workflow,
        "has_model": (folder / "model").is_dir(),
        "can_resume": has_workflow and has_state and facts.get("status") != "running",
        "modified": int(_last_sign(folder) * 1000),
    }


def read_facts(folder: Path) -> dict[str, Any]:
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return facts if isinstance(facts, dict) else {}


def is_live(folder: Path, own: OwnJobs) -> bool:
    """Whether a run that says so really runs: a program holds its lock.

    Of one without a lock: our own job wrote it, or some program wrote to it a moment ago. A run of a job whose server
    died does not, however short ago that was, unless somebody goes on with it since.
    """
    facts = read_facts(folder)
    if facts.get("status") != "running":
        return False
    if (folder / LOCK).exists():  # runs of versions before have none
        with contextlib.suppress(OSError):  # nobody may ask on a read-only disk
            return is_held(folder)
    last = _last_sign(folder)
    if own.live_since is not None and last >= own.live_since:
        return True
    begun = _begun(facts)
    if any(start - 1 <= begun and last < end for start, end in own.died):  # run.json tells whole seconds
        return False
    return abs(time.time() - last) < QUIET  # the clock may have been set back


def _begun(facts: dict[str, Any]) -> float:
    """When a run was started or last resumed, in seconds; 0 where run.json does not say."""
    resumed = facts.get("resumed")
    newest = resumed[-1] if isinstance(resumed, list) and resumed and isinstance(resumed[-1], dict) else facts
    try:
        return datetime.strptime(str(newest.get("started")), "%Y-%m-%dT%H:%M:%S%z").timestamp()
    except ValueError:
        return 0.0


def _last_sign(folder: Path) -> float:
    """When the training itself last wrote; a note of a person is no sign of it."""
    written = still_there(path for path in folder.glob("*.json*") if path.name != NOTES)
    return max((facts.st_mtime for _, facts in written), default=0.0)


def run_folder(runs: Path, name: str) -> Path:
    """The folder of a run. Raises Outside for a name that is none, FileNotFoundError if there is no such run."""
    folder = inside(runs, name)
    if folder.parent != runs.resolve() or (runs / name).is_symlink():
        raise Outside(f"{name!r} is not the name of a run")
    if not (folder / FACTS).is_file():
        raise FileNotFoundError(folder)
    return folder


def read_rows(folder: Path, after: int, most: int) -> tuple[list[dict[str, Any]], bool]:
    """Rows of metrics with ``step`` > ``after``, oldest first, at most so many; and whether there are more."""
    rows: list[dict[str, Any]] = []
    path = folder / "metrics.jsonl"
    if not path.is_file():
        return rows, False
    with path.open(encoding="utf-8") as file:
        for line in file:
            try:
                row = json.loads(line)
            except ValueError:  # a line that is being written
                continue
            if isinstance(row, dict) and row.get("step", -1) > after:
                if len(rows) == most:
                    return rows, True
                rows.append(row)
    return rows, False


def list_files(folder: Path, output: Path) -> list[dict[str, Any]]:
    """Every file of a run; ``view`` is the query that shows it through /view."""
    base = output.resolve()
    files = []
    for path, facts in still_there(walk(folder)):
        place = path.parent.relative_to(base).as_posix()
        files.append(
            {
                "path": path.relative_to(folder).as_posix(),
                "size": facts.st_size,
                "modified": int(facts.st_mtime * 1000),
                "view": {"filename": path.name, "subfolder": place, "type": "output"},
            }
        )
    return files


def delete_run(folder: Path) -> None:
    shutil.rmtree(folder)
