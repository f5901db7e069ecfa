"""What a run keeps on the way and at its end: its state, to go on from, and copies of the model."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from ..diffusion.schedules import Schedule
from ..files.full import is_full
from ..hosts.device import memory_left
from ..models.saving import CHECKPOINTS, drop_oldest, save_model, weights_of
from ..training.forward import training_mode
from ..training.state import Snapshot, size_of, snapshot, tensors_of
from ..training.weights import averaged
from .notice import SLOW, SPARE, tell_how_long
from .room import with_room
from .session import Look, Session, due

log = logging.getLogger(__name__)

SHARE = 100
"""A state by the clock waits this many times as long as the last one took: states cost under 1% of the time."""
MEMORY = 1.2
"""Times the size of a state that must be free in memory for a copy of it."""


@dataclass
class Checkpoint(Look):
    """Keeps the state and a copy of the model on the way, and both at the end, unless they have diverged.

    A state is also kept by the clock, whatever ``every`` is. While it is written, the training goes on.
    """

    every: int = 0
    """Updates between two; 0 = only at the end."""
    keep: int = 0
    """Of the copies on the way leave only so many, the newest; 0 = all."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Goes into the weights' files, such as the workflow."""
    keep_states: int = 2
    """How many states stay, the newest."""
    minutes: float = 3.0
    """Between two states by the clock; more where a state takes long."""

    def __post_init__(self) -> None:
        self._know_nothing()

    def _know_nothing(self) -> None:
        """Of any run: the one that begins may not be the first that has this look."""
        self.on_cpu = False
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="rollout-state")
        self.writing: Future[None] | None = None
        self.begun = self.costs = 0.0
        self.kept_at: int | None = None
        """Updates that the newest state has seen."""
        self.speed = SLOW
        """Bytes a second of the newest state that was written."""
        self.beside = 0.0
        """Processor seconds that writing the newest state took from a training on the CPU."""
        self.blocked = 0.0
        """Seconds for which the training has waited for states."""

    def begin(self, session: Session) -> None:
        """Look whether a state and a model have room at all, before hours of training.

        The copy that belongs to the state which a run goes on from is made up for, if it was killed between the two.
        """
        self._know_nothing()
        self.begun = time.monotonic()
        if session.folder is None:
            if self.every:
                raise ValueError("a copy of the model is to be kept on the way, and the run has no folder for it")
            return
        state = size_of(tensors_of(session.trainer))
        self._with_room(session, "a state and the model", state + self._size_of_model(session), lambda: None)
        tell_how_long(state, session.folder.folder)
        if session.reached and due(self.every, session):
            self._copy(session)

    def after(self, session: Session) -> None:
        if due(self.every, session):
            assert session.folder is not None
            if self._is_sound(session):
                self.keep_state(session)
                self._copy(session)
        elif session.folder is not None and self._time_is_up(session) and self._is_sound(session):
            self.keep_state_aside(session)

    def conclude(self, session: Session) -> None:
        if session.folder is None:
            return
        try:
            self.settle()
            if session.whole:
                session.check_weights()
                self._keep_all(session)
        finally:
            self.thread.shutdown()

    def _keep_all(self, session: Session) -> None:
        """The state first: it is what a run that is to end within seconds needs most, and all that it needs.

        The model, which the state has as well, only where there is time for it.
        """
        assert session.folder is not None
        left = session.run.host.seconds_left
        try:
            if session.processes.decided(self.kept_at != session.reached):
                self.keep_state(session)
                if left() < math.inf:
                    log.warning("the state after step %d was written in %.1f s", session.reached, self.costs)
        finally:
            if session.processes.decided(self._size_of_model(session) / self.speed < left() - SPARE):
                self.save(session, "model")
            else:
                log.warning("the end is near, so the model is not written: what was learnt is in the state")

    def _copy(self, session: Session) -> None:
        """A copy of the model on the way; the oldest ones go."""
        assert session.folder is not None
        place = f"{CHECKPOINTS}/step_{session.reached:06d}"
        self.save(session, place)
        if session.processes.leads:
            drop_oldest(session.folder.folder / CHECKPOINTS, self.keep)

    def _is_sound(self, session: Session) -> bool:
        """Whether this is a state to go back to: not amid steps of which nothing was learnt."""
        session.tell_metrics()
        session.check_loss()
        session.check_weights()
        return not session.bad

    def _time_is_up(self, session: Session) -> bool:
        waited = time.monotonic() - self.begun
        free = self.writing is None or self.writing.done()
        late = waited > max(60 * self.minutes, SHARE * (self.costs + self.beside))
        return session.processes.decided(late and free)

    def keep_state(self, session: Session) -> None:
        """Now, and wait until it is on the disk; where there is no room, until there is."""
        assert session.folder is not None
        self.settle()
        begun, folder = time.monotonic(), session.folder
        folder.flush()
        shot = snapshot(session.trainer, folder.id, copy=False)
        if not session.processes.leads:
            return
        self._with_room(session, shot.in_words, shot.size, lambda: self._write(shot, folder.folder))
        self._count(begun)
        facts = {"step": session.reached, "seconds": round(self.costs, 3), "megabytes": round(shot.size / 1e6, 3)}
        folder.update(state=facts)

    def keep_state_aside(self, session: Session) -> None:
        """Copy it now, and write it while the training goes on; where there is no room, the next one is tried.

        Where the memory is too small for a copy, the training waits until it is written.
        """
        assert session.folder is not None
        self.settle()
        if session.processes.decided(memory_left() < MEMORY * size_of(tensors_of(session.trainer))):
            return self.keep_state(session)
        begun, folder = time.monotonic(), session.folder
        folder.flush()
        shot = snapshot(session.trainer, folder.id)
        if not session.processes.leads:
            return None

        def write() -> None:
            with_room(
                folder.folder,
                shot.in_words,
                shot.size,
                lambda: self._write(shot, folder.folder),
                wait=False,
                kept=self._safe(),
            )

        self.on_cpu = session.run.device.type == "cpu"
        self.writing = self.thread.submit(write)
        self._count(begun)

    def _write(self, shot: Snapshot, folder: Path) -> None:
        begun = time.monotonic()
        self.kept_at = shot.save(folder, self.keep_states).step
        took = time.monotonic() - begun
        self.speed = shot.size / max(1e-3, took)
        self.beside = took / (os.cpu_count() or 1) if self.on_cpu else 0.0

    def _count(self, begun: float) -> None:
        """Note the seconds for which the training has waited for a state, since ``begun``."""
        self.begun = time.monotonic()
        self.costs = self.begun - begun
        self.blocked += self.costs

    def settle(self) -> None:
        """Wait for the state that is being written; where that went wrong, say so: the one before is still there."""
        writing, self.writing = self.writing, None
        if writing is None:
            return
        try:
            writing.result()
        except Exception as error:
            if not is_full(error) and not isinstance(error, OSError):
                raise
            log.warning("%s", error)

    def _safe(self) -> str:
        return "" if self.kept_at is None else f"the state after step {self.kept_at} is kept"

    def save(self, session: Session, place: str) -> None:
        """A copy of the model, with the averaged weights if there are any."""
        assert session.folder is not None
        path, schedule = session.folder.folder / place, next(session.trainer.loss.constants(Schedule), None)
        weights = None
        if session.processes.shards:
            with training_mode(), averaged(session.run, session.model.network):
                weights = weights_of(session.model, kept=session.processes.leads)
        if not session.processes.leads:
            return

        def write() -> None:
            with training_mode(), nullcontext() if weights else averaged(session.run, session.model.network):
                save_model(path, session.model, schedule, self.metadata, weights)

        self._with_room(session, f"the model in {place}", self._size_of_model(session), write)

    def _size_of_model(self, session: Session) -> int:
        whole = session.model.network.state_dict()
        return size_of(session.trainer.weights if session.model.adapters else whole)

    def _with_room(self, session: Session, what: str, need: int, write: Callable[[], None]) -> None:
        assert session.folder is not None
        if not session.processes.leads:
            return
        host = session.run.host
        waits = host.waits_for_room and not session.ending_badly
        with_room(
            session.folder.folder, what, need, write,
            wait=waits, interrupted=host.check_interrupted, kept=self._safe(),
        )  # fmt: skip
