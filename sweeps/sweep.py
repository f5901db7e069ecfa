"""A sweep on disk: the workflow, its variants, and the run of each. Whoever starts it again goes on with it.

::

    sweep.json      the variants, in the order in which they were asked for
    workflow.json   what all of them start from
    table.txt, results.json, curves.png, samples.png    what came of them
    jobs/           what the scheduler wrote

The runs themselves are run folders like all others, ``rollout/<sweep>-001_00001`` for the first variant.
"""

from __future__ import annotations

import glob
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..files import notes
from ..files.whole import read_object, writable, write_text
from ..runs.run_folder import FACTS, facts_in

DONE = "finished"
PLAN, WORKFLOW = "sweep.json", "workflow.json"
LOOK_EVERY = 0.5
"""Seconds between two looks at a run that goes on."""


@dataclass(frozen=True)
class Sweep:
    """Variants of one workflow that belong together."""

    folder: Path
    output: Path
    """Where the runs' folders are made: in ``rollout/`` of it."""
    trainer: str
    """The id of the workflow's one Optimizer Step."""
    variants: tuple[tuple[str, ...], ...]
    """The assignments of each."""

    @classmethod
    def planned(
        cls,
        output: Path,
        name: str,
        workflow: dict[str, Any],
        trainer: str,
        common: Sequence[str],
        chosen: Sequence[Sequence[str]],
    ) -> Sweep:
        """The sweep of this name, with these variants beside those that it has already; it is written down.

        ``common`` are assignments of every variant. Raises ValueError where a sweep of another workflow is in the way.
        """
        folder = writable(output / "sweeps") / name
        text = json.dumps(workflow, indent=1, ensure_ascii=False) + "\n"
        before: list[tuple[str, ...]] = []
        if (folder / PLAN).is_file():
            kept = read_object(folder / PLAN)
            same = (folder / WORKFLOW).read_text(encoding="utf-8") == text and kept.get("common") == list(common)
            if not same:
                raise ValueError(f"{folder} is a sweep of another workflow: choose another --name")
            before = [tuple(each) for each in kept["variants"]]
        wanted = [tuple(each) for each in chosen]
        found = cls(folder, output, trainer, tuple(before + [each for each in wanted if each not in before]))
        folder.mkdir(exist_ok=True)
        write_text(folder / WORKFLOW, text)
        plan = {"trainer": trainer, "common": list(common), "variants": found.variants}
        write_text(folder / PLAN, json.dumps(plan, indent=1, ensure_ascii=False) + "\n")
        return found

    def run_name(self, number: int) -> str:
        return f"{self.folder.name}-{number + 1:03d}"

    def run_of(self, number: int) -> Path | None:
        """The newest run folder of a variant, if it was ever started."""
        found = sorted((self.output / "rollout").glob(f"{glob.escape(self.run_name(number))}_[0-9]*/{FACTS}"))
        return found[-1].parent if found else None

    def missing(self) -> list[int]:
        """The variants that are not finished yet."""
        runs = ((number, self.run_of(number)) for number in range(len(self.variants)))
        return [number for number, run in runs if run is None or facts_in(run).get("status") != DONE]

    def command(self, number: int, device: str) -> list[str]:
        """What runs a variant, or goes on with it where it has a state to go on from."""
        program = [sys.executable, "-m", "comfyui_rollout", "run"]
        where = ["--output", str(self.output), "--device", device, "--no-wait"]
        run = self.run_of(number)
        if run is not None and (run / "state").is_dir():
            return [*program, "--resume", str(run), *where]
        common = read_object(self.folder / PLAN)["common"]
        assignments = [*common, *self.variants[number], f"{self.trainer}.run_name={self.run_name(number)}"]
        changes = [part for assignment in assignments for part in ("--set", assignment)]
        return [*program, str(self.folder / WORKFLOW), *changes, *where]

    def run(self, number: int, device: str, stop: threading.Event | None = None) -> int:
        """Run a variant to its end in a process of its own, whose words go into ``jobs/``; returns its exit code.

        After ``stop`` it is told, once, to save its state and end.
        """
        log = writable(self.folder / "jobs") / f"{self.run_name(number)}.log"
        with log.open("ab") as words:
            process = subprocess.Popen(
                self.command(number, device),
                stdin=subprocess.DEVNULL,
                stdout=words,
                stderr=subprocess.STDOUT,
                start_new_session=sys.platform != "win32",
                creationflags=APART,
            )
        told = labelled = False
        while True:
            try:
                code = process.wait(LOOK_EVERY)
            except subprocess.TimeoutExpired:
                labelled = labelled or self.label(number)
                if stop is not None and stop.is_set() and not told:
                    told = True
                    process.send_signal(STOP)
            else:
                self.label(number)
                return code

    def label(self, number: int) -> bool:
        """A tag and a note on the run of a variant, by which the Runs tab finds all of a sweep; once, for a person may
        change them. Whether the run is there.
        """
        run = self.run_of(number)
        if run is not None and not (run / notes.FILE).exists():
            tag, note = self.folder.name[: notes.LONGEST_TAG], ", ".join(self.variants[number])[: notes.LONGEST_NOTE]
            notes.write(run, {"tags": [tag], "note": note})
        return run is not None


# A terminal's ctrl-C is for the sweep, which passes it on: a run that hears it twice leaves at once.
if sys.platform == "win32":
    APART, STOP = subprocess.CREATE_NEW_PROCESS_GROUP, signal.CTRL_BREAK_EVENT
else:
    APART, STOP = 0, signal.SIGTERM
