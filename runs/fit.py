"""Training from plain Python, and from Optimizer Step: one call that trains and leaves a folder."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ..hosts.device import choose_device
from ..hosts.host import Host, Silent
from ..hosts.processes import ONE, Processes, join
from ..training.loop import Trainer, prepare
from ..training.optimizers import OptimizerSettings
from ..training.options import AS_USUAL, TrainingOptions
from ..training.state import SavedState
from ..training.stream import Run, Stream
from .looks import Account, Checkpoint, Measure, Progress
from .processes.logs import log_kept
from .recorder import Recorder
from .run_folder import FolderOfAnother, RunFolder, facts_in, versions
from .session import Look, Session

log = logging.getLogger(__name__)


def fit(
    loss: Stream,
    model: Stream,
    optimizer: OptimizerSettings,
    *,
    steps: int,
    folder: Path | str | None = None,
    resume: SavedState | None = None,
    seed: int = 0,
    device: str = "auto",
    host: Host | None = None,
    looks: Sequence[Look] = (),
    preview_every: int = 0,
    files: Mapping[str, Any] | None = None,
    node_id: str = "train",
    notes: Sequence[str] = (),
    options: TrainingOptions = AS_USUAL,
    **single: Any,
) -> Session:
    """Train ``model`` on ``loss``, a stream of one value per sample, for ``steps`` updates in all.

    With ``folder`` (``output/cats``) the run leaves a new, numbered one of that name (``output/cats_00001``) with its
    metrics, curve, pictures, state and model, beside the JSON ``files``; a :class:`Checkpoint` among ``looks`` says how
    often on the way. ``resume`` (:func:`~comfyui_rollout.training.state.find_state`) goes on with an earlier run in its
    own folder and with its own seed. ``single`` options may be given by their names: ``accumulation=4``. ``notes`` are
    lines for the user: logged, and kept in run.json as ``said``. Every ``preview_every``-th step, nodes show the host
    what passes through them.

    Raises ValueError for what cannot be trained, before a resumed run's folder is touched, and StepError, naming node
    and step, for what fails on the way; what was learnt until then is saved first.
    """
    options, place = replace(options, **single), choose_device(device)
    if host is None:
        host = Host()
        host.processes = join(place)
    processes, place = host.processes, host.processes.device(place)
    record: RunFolder | None = None

    def note_failure(message: str) -> None:
        if record:
            record.note(status="failed", message=message)

    with processes.watched(note_failure), processes.ending():
        resume = processes.from_lead(resume)
        seed = resume.seed if resume else seed
        batch = batch_of_an_update(loss, processes.count, options.accumulation)
        before = facts_in(resume.folder).get("batch") if resume else None
        notes = [*notes, *processes_in_words(loss, processes.count), *other_batch_in_words(before, batch)]
        facts = {"seed": seed, "steps": steps, "node": node_id, "device": place, "versions": versions()}
        facts |= {"said": notes, "batch": batch}
        facts |= {"processes": processes.count} if processes.count > 1 or resume else {}
        record = open_folder(folder, resume, facts, processes)
        streams = [loss, model, *(stream for look in looks for stream in look.streams)]
        reports = (Recorder(host, record) if record else host) if processes.leads else Silent(host)
        run = Run(*streams, seed=seed, device=place, host=reports, processes=processes)
        ready = partial(prepare, loss, model, optimizer, steps=steps, run=run, node_id=node_id, options=options)
        with record.locked() if record else nullcontext(), log_kept(record.folder if record else None, processes):
            for note in notes if processes.leads else ():  # before the training is paid for; the node says it later
                log.info("node %s: %s", node_id, note)
            # What does not fit is refused before anything in a resumed run's folder changes.
            trainer, restored = take_up(record, resume, ready, facts) if resume and record else (None, [])
            with status_of(record, host if processes.leads else reports), processes.ending():
                if record:
                    for name, content in (files or {}).items():
                        record.write_json(name, content)
                session = Session(trainer or ready(), run.value(model), in_order(looks), record)
                session.notes += [*restored, *notes]
                session.train(preview_every)
    for part in run.parts:
        host.finish(part.node_id)
    return session


def batch_size_in(loss: Stream) -> int | None:
    data = loss.data()
    return data.inputs["batch_size"] if data else None


def batch_of_an_update(loss: Stream, count: int, accumulation: int) -> dict[str, int]:
    """What makes up the items of an update; empty where the batches come from elsewhere."""
    size = batch_size_in(loss)
    return {} if size is None else {"batch_size": size, "processes": count, "accumulation": accumulation}


def other_batch_in_words(before: Any, now: Mapping[str, int]) -> list[str]:
    """What it means for a run to go on with another global batch than it had; nothing where it has the same."""
    known = isinstance(before, dict) and before.keys() == now.keys()
    if not now or not known or not all(isinstance(value, int) for value in before.values()):
        return []
    size, count, pulls = (now[name] for name in now)
    old_size, old_count, old_pulls = (before[name] for name in now)
    if (size * count, pulls) == (old_size * old_count, old_pulls):
        return []
    had, has = (" x ".join(f"{name} {each[name]}" for name in now) for each in (before, now))
    fits, left = divmod(old_size * old_count, count)
    remedy = "" if left else f"; batch_size {fits} and accumulation {old_pulls} keep it as it was"
    return [
        f"resume: an update had {old_size * old_count * old_pulls} items ({had}) and now has {size * count * pulls} "
        f"({has}), so the run goes on with other batches, not exactly where it was{remedy}"
    ]


def processes_in_words(loss: Stream, count: int) -> list[str]:
    """How large the global batch of several processes is."""
    size = batch_size_in(loss)
    if count == 1 or size is None:
        return []
    return [f"{count} processes train together: batch_size {size} is that of each, the global batch has {size * count}"]


def in_order(looks: Sequence[Look]) -> list[Look]:
    """With the looks that every run has: progress and losses first, so that a copy is of what has been checked."""
    if not any(isinstance(look, Checkpoint) for look in looks):
        looks = [*looks, Checkpoint()]
    early, late = [look for look in looks if look.early], [look for look in looks if not look.early]
    return [Progress(), *early, Measure(), *late, Account()]


def open_folder(
    folder: Path | str | None, resume: SavedState | None, facts: Mapping[str, Any], processes: Processes = ONE
) -> RunFolder | None:
    """The run's folder: the resumed run's own, a new one, or none. Raises ValueError if nothing can be written."""
    place = resume.folder if resume else Path(folder) if folder else None
    if place is None:
        return None
    record = None
    if processes.leads:
        record = RunFolder(place) if resume else RunFolder.create(place.parent, place.name, facts)
    where, known = processes.from_lead((record.folder, record.facts) if record else (Path(), {}))
    return record or FolderOfAnother(where, known)


def take_up(
    record: RunFolder, resume: SavedState, ready: Callable[..., Trainer], facts: Mapping[str, Any]
) -> tuple[Trainer, list[str]]:
    """Go on in a run's folder from a state; returns the trainer that has it, and what the user is told of it."""
    resume.still_there()
    trainer = ready(state=resume)
    processes = trainer.processes
    processes.any(False)  # not before all have read the state
    restored = [*resume.notes, resume.in_words(trainer)]
    record.go_on(resume.step, facts, resume.run)
    if processes.leads:
        resume.take()
    trainer.run.host.resumed(trainer.node_id, "; ".join(restored))
    return trainer, restored


@contextmanager
def status_of(folder: RunFolder | None, host: Host) -> Iterator[None]:
    """The run's folder says how it ended, and the host hears of it, whatever happens."""
    if folder is None:
        yield
        return
    begun = time.perf_counter() - folder.seconds  # those before a resume count too

    def ended(status: str, **more: str) -> None:
        folder.note(status=status, **more, seconds=round(time.perf_counter() - begun, 2))
        host.ended(folder.folder, status, more.get("message", ""))

    try:
        yield
    except Exception as error:
        ended("failed", message=str(error))
        raise
    except BaseException as stop:  # ComfyUI's interrupt and ours are both of this kind
        ended("interrupted", message=str(stop) or "stopped by the user")
        raise
    ended("finished")
