"""The looks of a run: what happens beside the training once in a while, each in a few lines."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from ..data.data import Dataset, whole_batches
from ..data.reading.patience import PatientReader
from ..diffusion import seeds
from ..diffusion.schedules import Schedule
from ..diffusion.validation import validation_losses
from ..training.forward import autocast, training_mode
from ..training.stream import Step, Stream
from ..training.weights import averaged
from .checkpoint import Checkpoint
from .session import Look, Session, due

log = logging.getLogger(__name__)

__all__ = ["Account", "Checkpoint", "Measure", "Progress", "Sample", "Tell", "TimeBudget", "Validate"]

READ_METRICS_EVERY = 10
"""Steps between two readings of the losses: each makes the program wait for the device once."""


class Progress(Look):
    """Tells the host how far every working node is."""

    def after(self, session: Session) -> None:
        for stream in session.trainer.loss.walk():
            session.run.host.progress(stream.node_id, session.reached, session.steps)
        session.run.host.progress(session.node_id, session.reached, session.steps)


class Measure(Look):
    """Reads the losses now and then, tells the host, and ends a run that has diverged."""

    def after(self, session: Session) -> None:
        if session.reached % READ_METRICS_EVERY == 0:
            session.tell_metrics()
            session.check_loss()

    def finish(self, session: Session) -> None:
        session.tell_metrics()
        session.check_loss()
        session.check_learnt()
        session.check_weights()
        if session.skipped:
            session.notes.append(f"{len(session.skipped)} steps were left out; the log and run.json say which")

    def conclude(self, session: Session) -> None:
        session.tell_metrics()


@dataclass
class Tell(Look):
    """Calls a function with each reading's rows of metrics, for whoever trains from plain Python."""

    tell: Callable[[list[dict[str, Any]]], None]

    def read(self, session: Session, rows: list[dict[str, Any]]) -> None:
        self.tell(rows)


@dataclass
class Sample(Look):
    """Pulls a stream that makes sample images, with the averaged weights if there are any."""

    samples: Stream
    every: int = 0
    """Updates between two; 0 = only at the end."""

    def __post_init__(self) -> None:
        self.streams = (self.samples,)

    def after(self, session: Session) -> None:
        if due(self.every, session):
            self.draw(session)

    def finish(self, session: Session) -> None:
        self.draw(session)

    def draw(self, session: Session) -> None:
        with training_mode(), averaged(session.run, session.model.network):
            if session.processes.leads:
                with asked_together(session):
                    Step(session.run, session.reached, watched=True).value(self.samples)


@contextmanager
def asked_together(session: Session) -> Iterator[None]:
    """A stop that only this process has heard of ends what is done here, and then the run, by all together."""
    try:
        yield
    except Exception:
        raise
    except BaseException:
        if session.processes.count == 1:
            raise


@dataclass
class Validate(Look):
    """Reports ``validation_loss``: the plain loss of images that are not trained, with the averaged weights if any.

    Items, noise and levels are the same each time and in each run, whatever its seed, so that runs can be compared. It
    draws nothing that training draws, and leaves no trace in it.
    """

    dataset: Dataset
    batch_size: int
    every: int
    """Updates between two; also before the first update and after the last."""
    levels: int = 4
    """How many noise levels each image is measured at."""
    schedule: Schedule | None = None
    """None = that among the inputs of the loss."""
    early = True

    def __post_init__(self) -> None:
        self.reader = PatientReader(self.dataset)
        self.before: float | Tensor | None = None
        """What was found before the first update; it belongs to that one, whose loss is of the same weights."""

    def begin(self, session: Session) -> None:
        if session.reached == 0:
            self.before = self.measured(session)

    def after(self, session: Session) -> None:
        assert session.step is not None
        last = session.enough or session.reached == session.steps
        if due(self.every, session) or last:
            session.step.report("validation_loss", self.measured(session))
        elif self.before is not None:
            session.step.report("validation_loss", self.before)
        self.before = None

    def measured(self, session: Session) -> Tensor:
        """The mean over all images, on the device."""
        trainer, model, found = session.trainer, session.model, []
        size = max(1, self.batch_size // trainer.micro.count)
        clock = session.run.clock.measure(f"{session.node_id}.validation")
        with clock, training_mode(), averaged(session.run, model.network), model.evaluating():
            for items in whole_batches(self.dataset.info, size):
                if session.processes.count == 1:  # several measure the same, and stop together
                    session.run.host.check_interrupted()
                found.append(self.losses(items, session))
        return torch.cat(found).mean()

    def losses(self, items: list[int], session: Session) -> Tensor:
        """The validation loss of these images (B,)."""
        trainer = session.trainer
        schedule = self.schedule or next(trainer.loss.constants(Schedule), None)
        if schedule is None:
            raise ValueError("validation: no noise schedule is among the inputs of the loss: give Validate one")
        batch = self.reader.batch(items, generators_of(items, "cut")).to(session.run.device)
        with autocast(session.run.device, trainer.options.precision):
            return validation_losses(
                session.model, batch.latents, batch.conditioning, schedule, generators_of(items, "noise"),
                levels=self.levels, mask=batch.mask,
            )  # fmt: skip


def generators_of(items: Sequence[int], what: str) -> list[Generator]:
    """Each item's own, the same in every run."""
    return [seeds.generator(0, "validation", what, item) for item in items]


class Account(Look):
    """Writes into the run's folder how far it came, what took the time, and the curve."""

    def conclude(self, session: Session) -> None:
        if session.folder is None:
            return
        facts: dict[str, Any] = {"skipped": session.skipped} if session.skipped else {}
        if session.reached:
            facts["shares_of_time"] = session.shares_of_time()
        session.folder.note(steps_done=session.reached, **facts)
        if not session.reached:
            return
        try:
            session.folder.plot()
        except Exception as error:  # a picture less is no reason to call the training failed
            log.warning("the curve loss.png could not be drawn: %s", error)


@dataclass
class TimeBudget(Look):
    """Ends the run, as finished, once it has taken so long."""

    minutes: float
    early = True

    def begin(self, session: Session) -> None:
        self.begun: float | None = None

    def after(self, session: Session) -> None:
        self.begun = self.begun or time.monotonic()
        session.enough |= session.processes.decided(time.monotonic() - self.begun > 60 * self.minutes)
