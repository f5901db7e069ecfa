"""The numbers of each step, read from the device all at once, now and then."""

from __future__ import annotations

import math
import time
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor

from ..hosts.processes import Processes
from .numbers import joined, mean_of_each
from .stream import FiniteLosses, Number, Run, Step

SPIKE = 3.0
"""A loss so many times the median of those before it is one."""
BEFORE = 50
"""Steps that this median is of."""


class Spikes:
    """Steps whose loss is far above those before, where a training begins to go wrong.

    Only the loss that is trained on counts: a part of it grows as it should while rollouts become more.
    """

    def __init__(self) -> None:
        self.losses: deque[float] = deque(maxlen=BEFORE)

    def mark(self, row: dict[str, Any]) -> None:
        """Give the row its ``spike`` (1.0) if it is one, which all charts show, and know it from then on."""
        loss = row.get("loss")
        if not isinstance(loss, (int, float)):
            return
        if len(self.losses) >= BEFORE // 5 and loss > SPIKE * median(self.losses) > 0:
            row["spike"] = 1.0
        self.losses.append(loss)

    def go_on(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Know the losses of these rows (oldest first) and no others, as after a resume."""
        self.losses.clear()
        self.losses.extend(row["loss"] for row in rows if isinstance(row.get("loss"), (int, float)))


@dataclass(frozen=True)
class Pending:
    """The numbers of an update that nobody has read from the device yet; looks at the run may still add to them."""

    update: int
    pulls: list[dict[str, Number]]
    """What was reported in each pull."""
    numbers: dict[str, Number]
    """What was reported of the whole update: means over its pulls, and what came after them."""
    finite: list[FiniteLosses]
    """Which of its items have a finite loss, by pull."""

    def reports(self, alone: bool) -> list[dict[str, Number]]:
        """The numbers to read: those of the update where this process is ``alone``. Else those of each pull, of which
        other processes have a part each, since a mean over processes must come before that over pulls; and the rest."""
        if alone:
            return [self.numbers]
        of_pulls = {name for pull in self.pulls for name in pull}
        return [*self.pulls, {name: number for name, number in self.numbers.items() if name not in of_pulls}]


class Metrics:
    """Collects the numbers of each step and reads them from the device all at once, now and then."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.pending: list[Pending] = []
        self.bad: dict[int, list[FiniteLosses]] = {}
        """Of the last reading, the steps whose loss or gradient was no finite number, with their items."""
        self.spikes = Spikes()
        self.timed = 0
        self.since: float | None = None
        """When the stretch began whose speed is measured; the very first step, which sets things up, is left out."""
        self.seconds: dict[str, float] = defaultdict(float)
        """Seconds per node since the start."""

    def add(self, step: Step) -> None:
        self.pending.append(Pending(step.update, step.pulls, step.numbers, step.finite))
        if self.since is None:
            self.since, self.timed = time.perf_counter(), 0
        else:
            self.timed += 1

    def read(self) -> list[dict[str, Any]]:
        """One row a step, oldest first, with seconds per node and steps per second of the whole stretch.

        A number that is not finite is None, for JSON knows no other word for it.
        """
        updates = [each.update for each in self.pending]
        alone = self.run.processes.count == 1
        rows = merged(updates, self.run.processes.gathered(read([each.reports(alone) for each in self.pending])))
        self.bad = {
            row["step"]: [everybodys(self.run.processes, own) for own in each.finite]
            for row, each in zip(rows, self.pending, strict=True)
            if row.get("loss") is None or row.get("skipped")
        }
        for row in rows:
            if not row.get("skipped"):
                row.pop("skipped", None)
            self.spikes.mark(row)
        measured = self.run.clock.read()
        for name, total in measured.items():
            self.seconds[name] += total
        seconds = {name: total / max(1, len(rows)) for name, total in measured.items()}
        speed = self._speed()
        for row in rows:
            row["steps_per_second"] = speed
            row["seconds"] = seconds
        self.pending.clear()
        return rows

    def _speed(self) -> float | None:
        """Steps per second of wall time since the last reading, sampling and saving included."""
        if not self.since or not self.timed:
            return None
        now = time.perf_counter()
        speed = self.timed / (now - self.since)
        self.since, self.timed = now, 0
        return speed


def finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def read(updates: list[list[dict[str, Number]]]) -> list[list[dict[str, Number]]]:
    """The numbers of some updates, brought to the CPU in one copy, so that the device is waited for once."""
    every = [number.value for reports in updates for report in reports for number in report.values()]
    tensors = [value.float() for value in every if isinstance(value, Tensor)]
    values = iter(torch.stack(tensors).tolist() if tensors else [])

    def there(number: Number) -> Number:
        return number._replace(value=next(values)) if isinstance(number.value, Tensor) else number

    return [[{name: there(number) for name, number in report.items()} for report in reports] for reports in updates]


def merged(updates: list[int], everybodys: list[list[list[dict[str, Number]]]]) -> list[dict[str, Any]]:
    """One row an update, of what each process has measured on its part of each pull's batch."""
    rows = []
    for update, of_processes in zip(updates, zip(*everybodys, strict=True), strict=True):
        wholes = [joined(of_pull) for of_pull in zip(*of_processes, strict=True)]
        means = mean_of_each([{name: number.value for name, number in whole.items()} for whole in wholes])
        row: dict[str, Any] = {"step": update}  # all of them were read to the CPU
        rows.append(row | {name: finite(float(value)) for name, value in means.items()})
    return rows


def everybodys(processes: Processes, own: FiniteLosses) -> FiniteLosses:
    """The same of the whole global batch: what each process knows of its own items, put together."""
    if processes.count == 1:
        return own
    parts = processes.gathered(FiniteLosses(own.index, own.finite.cpu(), own.levels, own.places))
    if any(each.places is None for each in parts):
        return own
    levels = [each.levels for each in parts if each.levels is not None]
    places = [each.places for each in parts if each.places is not None]
    return FiniteLosses(
        own.index,
        torch.cat([each.finite for each in parts]),
        torch.cat(levels) if len(levels) == len(parts) else None,
        torch.cat(places),
    )
