"""A run: the training loop, with its looks beside it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from ..hosts.machine import Machine
from ..models.model import Model
from ..models.sharded import here
from ..training.loop import Trainer
from ..training.metrics import Metrics
from ..training.state import find_state
from ..training.stream import FiniteLosses, Step, StepError, Stream
from .bad_steps import MOST_IN_A_ROW, in_words
from .metrics_file import read_metrics
from .run_folder import RunFolder

log = logging.getLogger(__name__)


class Look:
    """Something that happens beside the training, once in a while. Every method is called on the training thread."""

    streams: tuple[Stream, ...] = ()
    """What it pulls beside the loss: their nodes may have wishes, and hear when the run is over."""
    early = False
    """Whether it comes before the step's numbers are read: it adds to them, or says that they are the last."""

    def begin(self, session: Session) -> None:
        """Before the first update."""

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
        self.processes = trainer.processes
        self.metrics = Metrics(self.run)
        if folder is not None:
            self.metrics.spikes.go_on(read_metrics(folder.folder))
        self.machine = Machine(self.run.device)
        self.notes: list[str] = []
        """What the user is told when all is done, a line each."""
        self.reached = trainer.done
        """Updates that were done, those before a resume included."""
        self.step: Step | None = None
        """The newest one."""
        self.enough = False
        """A look sets it to end the run before all ``steps``, as if so many had been meant."""
        self.diverged_at: int | None = None
        """The first step whose loss, or whose weights, were no finite numbers, where that ends the run."""
        self.bad: dict[int, str] = {}
        """The newest steps in a row of which nothing was learnt, in words."""
        self.skipped: list[int] = []
        """All such steps."""
        self.went_back = False
        """Whether the run went back to its last good state: it does so once."""
        self.ending_badly = False
        """Whether it was stopped, or has failed: then nothing is waited for."""

    def train(self, preview_every: int = 0) -> None:
        """Train to the end; when stopped or failing, the looks conclude first."""
        failed = True
        try:
            with self.processes.ending():
                self._train(preview_every)
            failed = False
        finally:
            self.conclude(quietly=failed)

    def _train(self, preview_every: int) -> None:
        self.processes.check(self.run.host.check_interrupted)
        for look in self.looks:
            look.begin(self)
        for step in self.trainer.updates(preview_every):
            self.step, self.reached = step, step.update + 1
            self.metrics.add(step)
            for look in self.looks:
                look.after(self)
            self.processes.check(self.run.host.check_interrupted)
            if self.enough:
                break
        for look in self.looks:
            look.finish(self)

    def conclude(self, quietly: bool) -> None:
        """All looks conclude, whatever happens to the others; ``quietly`` where something else ends the run already."""
        wrong: BaseException | None = None
        self.ending_badly = quietly
        for look in self.looks:
            try:
                look.conclude(self)
            except Exception as error:  # a full disk must not hide why the run ended
                if wrong or quietly:  # the first one is said by whoever hears that the run failed
                    log.error("%s could not conclude: %s", type(look).__name__, error)
                wrong = wrong or error
            except BaseException as stop:  # while it waited for room, say: the others conclude without waiting
                wrong, self.ending_badly = stop, True
        self.machine.close()
        if wrong and not quietly:
            raise wrong

    def tell_metrics(self) -> None:
        """Read the numbers of all steps that nobody has heard of yet; makes the program wait for the device."""
        rows = self.metrics.read()
        for row in rows:
            self._judge(row["step"], self.metrics.bad)
        if rows:
            rows[-1]["machine"] = self.machine.read()
            self.run.host.metrics(self.node_id, rows)
            for look in self.looks:
                look.read(self, rows)

    def _judge(self, step: int, bad: Mapping[int, Sequence[FiniteLosses]]) -> None:
        """Remember a step of which nothing could be learnt."""
        if step not in bad:
            self.bad.clear()
            return
        if self.trainer.options.on_bad_step == "stop":
            self.diverged_at = step if self.diverged_at is None else self.diverged_at
            return
        if self.trainer.scaler.is_enabled() and all(bool(pull.finite.all()) for pull in bad[step]):
            return  # fp16 looks for its scale
        self.bad[step] = in_words(self.trainer, step, bad[step])
        self.skipped.append(step)
        if len(self.bad) <= MOST_IN_A_ROW:
            log.warning("left out, for its loss or gradient is not a finite number: %s", self.bad[step])

    def check_loss(self) -> None:
        """Raises StepError where the losses that were read are no finite numbers, and that is no accident."""
        if self.diverged_at is not None:
            raise self.failure("the loss is not a finite number")
        if len(self.bad) >= MOST_IN_A_ROW:
            self._go_back()

    def check_learnt(self) -> None:
        """Raises StepError, at the end, where not one step taught anything."""
        if self.bad and len(self.bad) == self.reached:
            self.diverged_at = min(self.bad)
            raise self.failure(f"the loss was never a finite number; {self.bad[self.diverged_at]}")

    def _go_back(self) -> None:
        """Go back to the last good state, once. Raises StepError where there is none, or where that did not help."""
        words = [*self.bad.values()]
        report = f"{len(words)} steps in a row were left out, the last of them {words[-1]}"
        state = None
        if self.folder is not None and not self.went_back:
            try:
                state = find_state(self.folder.folder) if self.processes.leads else None
            except ValueError:
                log.warning("%s; there is no state to go back to", report)
        state = self.processes.from_lead(state)
        if state is None or self.folder is None:
            self.diverged_at = min(self.bad)
            raise self.failure(f"the loss is not a finite number; {report}")
        self.went_back = True
        state.restore(self.trainer)
        self.trainer.go_to(state.step)
        self.reached = state.step
        self.bad.clear()
        self.folder.go_back(state.step)
        self.metrics.spikes.go_on(read_metrics(self.folder.folder))
        note = f"{report}: went back once to the last good state, after step {state.step}"
        log.warning("%s", note)
        self.notes.append(note)
        self.run.host.resumed(self.node_id, note)

    def check_weights(self) -> None:
        """Raises StepError where a trained weight is no finite number: the newest update has spoilt it."""
        if not self.processes.any(not all(bool(here(weight).isfinite().all()) for weight in self.trainer.parameters)):
            return
        self.diverged_at = self.reached - 1
        raise self.failure("the trained weights are no finite numbers any more")

    def failure(self, what: str) -> StepError:
        """What to say of a training that has diverged."""
        where = f"node {self.node_id} (Optimizer Step), step {self.diverged_at}"
        return StepError(f"{where}: {what}; lower the learning rate, or clip the gradients")

    @property
    def whole(self) -> bool:
        """Whether what was learnt is worth keeping: no half of an update, nothing that has diverged."""
        known = self.diverged_at is None and not self.processes.left  # of what others have, nothing is known then
        return self.trainer.done == self.reached > 0 and known

    def shares_of_time(self) -> str:
        """Which node took how much of the time, the largest first."""
        streams = [*self.trainer.loss.walk(), *(part for look in self.looks for s in look.streams for part in s.walk())]
        titles = {stream.node_id: stream.title for stream in streams}
        total = sum(self.metrics.seconds.values()) or 1.0
        shares = sorted(((seconds / total, name) for name, seconds in self.metrics.seconds.items()), reverse=True)
        named = [(share, titles.get(name) or name.removeprefix(f"{self.node_id}.")) for share, name in shares]
        return "time: " + ", ".join(f"{name} {share:.0%}" for share, name in named if share >= 0.005)


def due(every: int, session: Session) -> bool:
    """Whether something that happens on the way, not at the end, happens now."""
    return every > 0 and session.reached % every == 0 and session.reached < session.steps
