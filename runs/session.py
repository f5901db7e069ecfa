"""A run: the training loop, with its looks beside it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..models.model import Model
from ..training.loop import Trainer
from ..training.metrics import Metrics
from ..training.stream import Step, StepError, Stream
from .run_folder import RunFolder


class Look:
    """Something that happens beside the training, once in a while. Every method is called on the training thread."""

    streams: tuple[Stream, ...] = ()
    """What it pulls beside the loss: their nodes may have wishes, and hear when the run is over."""

    def after(self, session: Session) -> None:
        """After each update: ``session.reached`` of ``session.steps`` are done."""

    def read(self, session: Session, rows: list[dict[str, Any]]) -> None:
        """When the numbers of some more steps were read, one row a step."""

    def finish(self, session: Session) -> None:
        """After the last update, if all went well."""

    def conclude(self, session: Session) -> None:
        """Last of all, also where the run was stopped or failed: keep what was learnt, if there was a step at all."""


class Session:
    """One run, as its looks see it."""

    def __init__(self, trainer: Trainer, model: Model, looks: Sequence[Look], folder: RunFolder | None = None) -> None:
        self.trainer, self.model, self.looks, self.folder = trainer, model, looks, folder
        self.run, self.node_id, self.steps = trainer.run, trainer.node_id, trainer.steps
        self.metrics = Metrics(self.run)
        self.notes: list[str] = []
        """What the user is told when all is done, a line each."""
        self.reached = trainer.done
        """Updates that were done, those before a resume included."""
        self.step: Step | None = None
        """The newest one."""
        self.enough = False
        """A look sets it to end the run before all ``steps``, as if so many had been meant."""
        self.diverged_at: int | None = None
        """The first step whose loss, or whose weights, were no finite numbers."""

    def train(self, preview_every: int = 0) -> None:
        """Train to the end; when stopped or failing, the looks conclude first."""
        failed = True
        try:
            self.run.host.check_interrupted()
            for step in self.trainer.updates(preview_every):
                self.step, self.reached = step, step.update + 1
                self.metrics.add(step)
                for look in self.looks:
                    look.after(self)
                self.run.host.check_interrupted()
                if self.enough:
                    break
            for look in self.looks:
                look.finish(self)
            failed = False
        finally:
            self.conclude(quietly=failed)

    def conclude(self, quietly: bool) -> None:
        """All looks conclude, whatever happens to the others; ``quietly`` where something else ends the run already."""
        wrong = None
        for look in self.looks:
            try:
                look.conclude(self)
            except Exception as error:  # a full disk must not hide why the run ended
                wrong = error
                logging.error("%s could not conclude: %s", type(look).__name__, error)
        if wrong and not quietly:
            raise wrong

    def tell_metrics(self) -> None:
        """Read the numbers of all steps that nobody has heard of yet; makes the program wait for the device."""
        rows = self.metrics.read()
        for row in rows:
            if row["loss"] is None and self.diverged_at is None:
                self.diverged_at = row["step"]
        if rows:
            self.run.host.metrics(self.node_id, rows)
            for look in self.looks:
                look.read(self, rows)

    def check_loss(self) -> None:
        """Raises StepError where a loss that was read is no finite number."""
        if self.diverged_at is not None:
            raise self.failure("the loss is not a finite number")

    def check_weights(self) -> None:
        """Raises StepError where a trained weight is no finite number: the newest update has spoilt it."""
        if all(bool(weight.isfinite().all()) for weight in self.trainer.parameters):
            return
        self.diverged_at = self.reached - 1
        raise self.failure("the trained weights are no finite numbers any more")

    def failure(self, what: str) -> StepError:
        """What to say of a training that has diverged."""
        where = f"node {self.node_id} ({self.trainer.title}), step {self.diverged_at}"
        return StepError(f"{where}: {what}; lower the learning rate, or clip the gradients")

    @property
    def whole(self) -> bool:
        """Whether what was learnt is worth keeping: no half of an update, nothing that has diverged."""
        return self.trainer.done == self.reached > 0 and self.diverged_at is None

    def shares_of_time(self) -> str:
        """Which node took how much of the time, the largest first."""
        streams = [*self.trainer.loss.walk(), *(part for look in self.looks for s in look.streams for part in s.walk())]
        titles = {stream.node_id: stream.title for stream in streams}
        total = sum(self.metrics.seconds.values()) or 1.0
        shares = sorted(((seconds / total, name) for name, seconds in self.metrics.seconds.items()), reverse=True)
        named = [(share, titles.get(name) or name.removeprefix(f"{self.node_id}.")) for share, name in shares]
        return "time: " + ", ".join(f"{name} {share:.0%}" for share, name in named if share >= 0.005)

    def pictures(self) -> list[Path]:
        """What sums the run up: the curve and the newest samples."""
        if self.folder is None:
            return []
        newest = sorted(self.folder.folder.glob("samples/*.png"))[-1:]
        return [path for path in [self.folder.folder / "loss.png", *newest] if path.is_file()]
