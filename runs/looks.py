"""The looks of a run: what happens beside the training once in a while, each in a few lines."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..diffusion.schedules import Schedule
from ..models.saving import CHECKPOINTS, drop_oldest, save_model
from ..training.loop import averaged, training_mode
from ..training.state import save_state
from ..training.stream import Step, Stream
from .session import Look, Session

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
        session.check_weights()

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
            Step(session.run, session.reached, watched=True).value(self.samples)


@dataclass
class Checkpoint(Look):
    """Keeps the state and a copy of the model on the way, and both at the end, unless they have diverged."""

    every: int = 0
    """Updates between two; 0 = only at the end."""
    keep: int = 0
    """Of the copies on the way leave only so many, the newest; 0 = all."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Of the weights' files, such as the workflow."""

    def after(self, session: Session) -> None:
        if not due(self.every, session):
            return
        session.tell_metrics()
        session.check_loss()
        session.check_weights()
        assert session.folder is not None
        save_state(session.folder.folder, session.trainer)
        copies = session.folder.folder / CHECKPOINTS
        self.save(session, f"{CHECKPOINTS}/step_{session.reached:06d}")
        drop_oldest(copies, self.keep)

    def conclude(self, session: Session) -> None:
        if session.whole and session.folder is not None:
            session.check_weights()
            try:
                save_state(session.folder.folder, session.trainer)
            finally:
                self.save(session, "model")

    def save(self, session: Session, place: str) -> None:
        assert session.folder is not None
        schedule = next(session.trainer.loss.constants(Schedule), None)
        with training_mode(), averaged(session.run, session.model.network):
            save_model(session.folder.folder / place, session.model, schedule, self.metadata)


class Account(Look):
    """Writes into the run's folder how far it came, what took the time, and the curve."""

    def conclude(self, session: Session) -> None:
        if session.folder is None:
            return
        session.folder.update(steps_done=session.reached)
        if not session.reached:
            return
        session.folder.update(shares_of_time=session.shares_of_time())
        try:
            session.folder.plot()
        except Exception as error:  # a picture less is no reason to call the training failed
            logging.warning("the curve loss.png could not be drawn: %s", error)


@dataclass
class TimeBudget(Look):
    """Ends the run, as finished, once it has taken so long."""

    minutes: float

    def __post_init__(self) -> None:
        self.begun: float | None = None

    def after(self, session: Session) -> None:
        self.begun = self.begun or time.monotonic()
        session.enough = session.enough or time.monotonic() - self.begun > 60 * self.minutes


def due(every: int, session: Session) -> bool:
    """Whether something that happens on the way, not at the end, happens now."""
    return every > 0 and session.reached % every == 0 and session.reached < session.steps
