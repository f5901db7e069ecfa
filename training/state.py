"""The state of a training, from which it goes on as if it had never stopped.

Random numbers depend on (seed, node, step), batches on their position, and the learning rate on the step. So the state
is what the updates themselves have made: weights, what the optimizer remembers, averaged weights, the loss scale, and
what nodes keep from step to step and say how (``Kept`` in stream.py).

A run keeps its newest states, each in one file, ``state/step_000250.safetensors``, with the facts and a checksum of
all of it in the header. ``state/state.json`` names them, the one to go on from first; it is written when that is on the
disk, so there is always one that is whole. Runs of versions before have ``state.json`` and
``state.safetensors``, and go on from these.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..files.lock import is_held
from ..files.weights import digest_of, read_metadata, read_weights, save_weights
from ..files.whole import read_object, tidy, write_text
from ..models.sharded import here, parted_like, whole
from .loop import Trainer
from .optimizers import OptimizerSettings

STATE = "state"
POINTER = "state.json"
LINE = "states"
"""In the pointer: the names of the run's states, the newest first."""
NAMED = re.compile(r"step_(\d{6,})(?:-(\d+))?\.safetensors")
BEFORE = "state.safetensors"
"""The tensors in runs of versions before, whose facts are in ``state.json``."""
RUN = "run.json"


class Unusable(ValueError):
    """A state that one cannot go on from, and why."""


@dataclass(frozen=True)
class SavedState:
    """What is known of a saved state before its tensors are put anywhere."""

    step: int
    """Updates that were done."""
    seed: int
    """Of the run; all random numbers go on from it."""
    optimizer: str
    averaged_updates: int | None = None
    """Updates of the averaged (EMA) weights; None where there were none."""
    numbers: Mapping[str, Any] = field(default_factory=dict)
    """What the optimizers remember that is no tensor, by the same names."""
    loss_scale: Mapping[str, Any] = field(default_factory=dict)
    """GradScaler's state; empty without fp16."""
    kept: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Of each node that keeps something from step to step (:class:`~.stream.Kept`), by its id: all but the tensors."""
    run: str = ""
    """The id of the run that it is of; empty in runs of versions before."""
    path: Path = Path()
    """The file with the tensors."""
    notes: tuple[str, ...] = ()
    """What the user shall know of how it was found, such as that a newer one is damaged."""

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.path.parent.parent

    def check(self, steps: int, optimizer: str) -> None:
        """Raises ValueError, before anything is loaded, where a training of so many steps cannot go on from here.

        Where all steps were done that the run was to have, it can: what comes after the training may be missing.
        """
        name = self.folder.name
        if steps < self.step or (steps == self.step != planned_steps(self.folder)):
            raise ValueError(f"resume: {name!r} has done {self.step} steps: set steps to more, to train it further")
        if optimizer != self.optimizer:
            raise ValueError(
                f"resume: {name!r} was trained with {self.optimizer}, and now the optimizer is {optimizer}: "
                f"choose {self.optimizer} again, or clear resume to begin anew"
            )

    def still_there(self) -> None:
        """Raises ValueError if another program has trained the run further since this state was found."""
        if not self.path.is_file():
            raise ValueError(f"resume: {self.folder.name!r} was trained further meanwhile: try again")

    def take(self) -> None:
        """From now on the run goes on from this state, and from none that came after it."""
        if self.path.name != BEFORE:
            point_at(self.path)

    def restore(self, trainer: Trainer) -> None:
        """Put the state into a trainer. Raises ValueError, before anything is changed, if it does not fit."""
        tensors = read_weights(self.path)
        weights, averages, memory = (below(tensors, kind) for kind in ("weights", "averaged", "optimizer"))
        run = self.folder.name
        check_fit(weights, trainer.weights, run)
        if averages or self.averaged_updates is not None:
            check_fit(averages, trainer.weights, run)
        check_memory(memory, trainer.weights, run, needed=self.step > 0 and self.optimizer != "sgd")
        check_finite(tensors, run)
        with torch.no_grad():
            for name, weight in trainer.weights.items():
                weight.copy_(parted_like(weights[name], weight))
        memory = up_to_date(trainer.settings, {**memory, **self.numbers})
        for number, optimizer in enumerate(trainer.optimizers):
            remember(optimizer, memory, trainer.weights)
            for place, group in enumerate(optimizer.param_groups):
                group.update(below(memory, f"group.{number}.{place}"))
        if average := trainer.run.averaged_weights:
            average.optimization_step = self.averaged_updates or 0
            for name, shadow in zip(trainer.weights, average.shadow_params, strict=True):
                shadow.copy_(parted_like(averages.get(name, weights[name]), shadow))
        if self.loss_scale and trainer.scaler.is_enabled():
            trainer.scaler.load_state_dict(dict(self.loss_scale))
        trainer.run.restore_kept(
            {node_id: {**values, **below(tensors, f"kept.{node_id}")} for node_id, values in self.kept.items()}
        )

    def in_words(self, trainer: Trainer) -> str:
        """One line for the user, who wants to be sure of what was restored."""
        if trainer.steps == self.step:
            return (
                f"{self.folder.name} has done all {self.step} steps: only what comes after the training is done now; "
                "set steps to more, to train it further"
            )
        rate = trainer.schedulers[0].get_last_lr()[0]
        average = ["averaged weights"] if self.averaged_updates and trainer.run.averaged_weights else []
        parts = ["weights", self.optimizer, *average, f"learning rate {rate:.3g}", f"seed {self.seed}"]
        words = f"{self.folder.name} goes on after step {self.step} of {trainer.steps}: {', '.join(parts)} restored"
        planned, curve = planned_steps(self.folder), trainer.settings.lr_schedule
        if planned in (None, trainer.steps) or curve.startswith("constant"):
            return words
        drawn = f"the {curve} learning rate was drawn over {planned} steps and is now over {trainer.steps}: it jumps"
        return f"{words}; {drawn}"


@dataclass(frozen=True)
class Snapshot:
    """A trainer's state on the CPU, apart from the trainer: it can be written while the training goes on."""

    facts: SavedState
    tensors: Mapping[str, Tensor]

    @property
    def size(self) -> int:
        """Bytes."""
        return size_of(self.tensors)

    @property
    def in_words(self) -> str:
        return f"the state after step {self.facts.step}"

    def save(self, folder: Path, keep: int = 1) -> SavedState:
        """Keep it in a run's folder as the newest state, and of older ones so many that there are ``keep``.

        The older ones stay until this one is on the disk, and named; then those go that are not of its line: what a
        run has that went back to an earlier state.
        """
        state = folder / STATE
        named = {field: value for field, value in asdict(self.facts).items() if field not in ("path", "notes")}
        text = json.dumps(named)
        path, line = _free_name(state, self.facts.step), _line(folder)
        save_weights(path, self.tensors, {"facts": text, "digest": digest_of(self.tensors, text)})
        line = [path, *line[: max(0, keep - 1)]]
        _name(line)
        for other in [*(other for other in states_in(folder) if other not in line), state / BEFORE]:
            with suppress(PermissionError):  # Windows, while somebody has it open: the next time, then
                other.unlink(missing_ok=True)
        return replace(self.facts, path=path)


def size_of(tensors: Mapping[str, Tensor]) -> int:
    return sum(value.numel() * value.element_size() for value in tensors.values())


def snapshot(trainer: Trainer, run: str = "", copy: bool = True) -> Snapshot:
    """The trainer's state now, as a copy; ``run`` is the id of the run. All processes ask, and the first one has it.

    Without ``copy`` it may be the trainer's own memory, and is good only until the next update.
    """
    average, kept = trainer.run.averaged_weights, trainer.run.state_of_kept()
    tensors = tensors_of(trainer)
    for node_id, values in kept.items():
        tensors |= {f"kept.{node_id}.{name}": value for name, value in parted(values)[0].items()}
    facts = SavedState(
        step=trainer.done,
        seed=trainer.run.seed,
        optimizer=trainer.settings.name,
        averaged_updates=average.optimization_step if average else None,
        numbers=parted(memory_of(trainer))[1],
        loss_scale=trainer.scaler.state_dict(),
        kept={node_id: parted(values)[1] for node_id, values in kept.items()},
        run=run,
    )
    own = tensors if copy else unshared(tensors)
    return Snapshot(facts, dict(on_cpu(own, trainer.processes.leads, copy)))


def on_cpu(tensors: Mapping[str, Tensor], kept: bool, copy: bool) -> Iterator[tuple[str, Tensor]]:
    """On the CPU, one after the other, tensors that processes may hold in parts; one of them has them ``kept``."""
    for name, value in tensors.items():
        together = whole(value.detach())
        if kept:
            yield name, together.to("cpu", copy=copy)


def save_state(folder: Path, trainer: Trainer, run: str = "", keep: int = 1) -> SavedState:
    """Keep the trainer's state in a run's folder; see :class:`Snapshot`."""
    return snapshot(trainer, run).save(folder, keep)


def point_at(path: Path) -> None:
    """From now on the run goes on from this state, and from none that came after it."""
    line = _line(path.parent.parent)
    _name(
        line[line.index(path) :] if path in line else [path, *(other for other in line if _order(other) < _order(path))]
    )


def _name(line: Sequence[Path]) -> None:
    """Write the pointer: the states of a run, the newest first."""
    write_text(line[0].parent / POINTER, json.dumps({LINE: [path.name for path in line]}))


def _line(folder: Path) -> list[Path]:
    """The states that led to the newest one, which is the first, as far as they are there."""
    return [path for path in _candidates(folder)[0] if path.name != BEFORE and path.is_file()]


def states_in(folder: Path) -> list[Path]:
    """The files of a run's states, the oldest first."""
    found = [path for path in (folder / STATE).glob("step_*.safetensors") if NAMED.fullmatch(path.name)]
    return sorted(found, key=_order)


def _order(path: Path) -> tuple[int, int]:
    named = NAMED.fullmatch(path.name)
    assert named is not None
    return int(named[1]), int(named[2] or 1)


def _step_of(path: Path) -> int:
    return _order(path)[0]


def _free_name(state: Path, step: int) -> Path:
    """A name for a new state: a run that went back may come to the same step again."""
    path, number = state / f"step_{step:06d}.safetensors", 1
    while path.exists():
        number += 1
        path = path.with_name(f"step_{step:06d}-{number}.safetensors")
    return path


def run_facts(folder: Path) -> dict[str, Any]:
    """What run.json says; nothing where it is damaged, which is no reason not to go on."""
    try:
        return read_object(folder / RUN)
    except (ValueError, OSError):
        return {}


def planned_steps(folder: Path) -> int | None:
    return run_facts(folder).get("steps")


def find_state(folder: Path, step: int | None = None) -> SavedState:
    """The newest whole state in a run's folder, or the one after ``step`` updates; its checksum is looked at.

    Raises ValueError if there is none to use, saying of each why.
    """
    if not folder.is_dir():
        raise ValueError(f"resume: there is no run {folder.name!r}: {str(folder)!r} is no folder")
    if not (folder / STATE).is_dir() and not is_held(folder):
        tidy(folder)  # versions before could be killed when the old state had left and the new one was still to come
    candidates, notes = _candidates(folder)
    if step is not None:
        there = sorted({_step_of(path) for path in states_in(folder)})
        candidates = [path for path in reversed(states_in(folder)) if _step_of(path) == step]
        if not candidates:
            known = ", ".join(map(str, there)) or "none"
            raise ValueError(f"resume: {folder.name!r} has no state after step {step}; it has some after: {known}")
    for path in candidates:
        try:
            state = _read_before(folder) if path.name == BEFORE else read_state(path)
            _check_run(state)
        except (Unusable, OSError) as error:
            notes.append(f"{path.name} cannot be used: {error}")
            continue
        said = [f"{'; '.join(notes)}: it goes on from {path.name}, after step {state.step}"] if notes else []
        return replace(state, notes=tuple(said))
    if notes:
        raise ValueError(f"resume: {folder.name!r} has no whole state: {'; '.join(notes)}; clear resume to begin anew")
    raise ValueError(
        f"resume: {folder.name!r} has no state to go on from; it is kept every few minutes, at each checkpoint "
        "(checkpoint_every), at a stop and at the end: clear resume to begin anew"
    )


def _candidates(folder: Path) -> tuple[list[Path], list[str]]:
    """The files to try, in their order (without a pointer all that are there), and what is wrong with the pointer."""
    found, pointer = list(reversed(states_in(folder))), folder / STATE / POINTER
    if not pointer.is_file():
        return found, [f"{pointer.name} is missing"] if found else []
    try:
        content = read_object(pointer)
    except (ValueError, OSError) as error:
        return found, [str(error)]
    if LINE not in content:
        tensors = folder / STATE / BEFORE
        return ([tensors] if tensors.is_file() else []) + found, [] if tensors.is_file() else [
            "its tensors are missing"
        ]
    names = content[LINE]
    if not (
        isinstance(names, list) and names and all(isinstance(name, str) and NAMED.fullmatch(name) for name in names)
    ):
        return found, [f"{pointer.name} names no states"]
    line = [pointer.with_name(name) for name in names]
    return [path for path in line if path.is_file()], [f"{path.name} is missing" for path in line if not path.is_file()]


def read_state(path: Path) -> SavedState:
    """The facts of one state, all of which is checked. Raises Unusable if it is not what was written."""
    try:
        metadata, tensors = read_metadata(path), read_weights(path)
        text, digest = metadata["facts"], metadata["digest"]
        whole = digest_of(tensors, text) == digest
        facts = json.loads(text) if whole else {}
    except (ValueError, KeyError) as error:
        raise Unusable(f"it is damaged ({error})") from error
    if not whole:
        raise Unusable("it is damaged: its checksum differs")
    state = _state_of(facts, path)
    if state.step != _step_of(path):
        raise Unusable(f"it is of step {state.step}")
    return state


def _read_before(folder: Path) -> SavedState:
    """A state of a version before, which had no checksum."""
    path = folder / STATE / BEFORE
    try:
        facts = read_object(folder / STATE / POINTER)
        read_weights(path)
    except ValueError as error:
        raise Unusable(str(error)) from error
    return _state_of(facts, path)


def _state_of(facts: Mapping[str, Any], path: Path) -> SavedState:
    try:
        state = SavedState(**facts, path=path)
    except TypeError as error:
        raise Unusable(f"it describes no state that we know ({error})") from error
    kinds = {"step": int, "seed": int, "optimizer": str, "run": str, "loss_scale": dict, "kept": dict}
    wrong = [name for name, kind in kinds.items() if type(getattr(state, name)) is not kind]
    if wrong or state.step < 0:
        raise Unusable(f"its {wrong[0] if wrong else 'step'} is {getattr(state, wrong[0] if wrong else 'step')!r}")
    return state


def _check_run(state: SavedState) -> None:
    """Raises Unusable for the state of another run, which somebody copied here."""
    own = run_facts(state.folder).get("id")
    if own is not None and state.run != own:
        raise Unusable("it is of another run")
    if own is None and state.run and (state.folder / RUN).is_file() and run_facts(state.folder):
        raise Unusable("it is of another run")


def tensors_of(trainer: Trainer) -> dict[str, Tensor]:
    """All tensors of the state: ``weights.<parameter>``, ``averaged.<parameter>``, ``optimizer.<parameter>.<what>``."""
    tensors: dict[str, Tensor] = {f"weights.{name}": weight for name, weight in trainer.weights.items()}
    if average := trainer.run.averaged_weights:
        shadows = zip(trainer.weights, average.shadow_params, strict=True)
        tensors |= {f"averaged.{name}": shadow for name, shadow in shadows}
    memory = unshared(parted(memory_of(trainer))[0])
    return tensors | {f"optimizer.{name}": value for name, value in memory.items()}


def unshared(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of which no two are the same memory, as a file wants them: 8-bit AdamW has one table for all weights."""
    found: dict[str, Tensor] = {}
    places = set()
    for name, value in tensors.items():
        place = here(value).untyped_storage().data_ptr()
        found[name] = value.clone() if place in places else value
        places.add(place)
    return found


def memory_of(trainer: Trainer) -> dict[str, Any]:
    """What the optimizers remember: ``<parameter>.<what>``, and ``group.<optimizer>.<group>.<what>`` they moved."""
    names: dict[Tensor, str] = {weight: name for name, weight in trainer.weights.items()}
    memory: dict[str, Any] = {}
    for number, optimizer in enumerate(trainer.optimizers):
        for weight, remembered in optimizer.state.items():
            memory |= {f"{names[weight]}.{what}": value for what, value in remembered.items() if value is not None}
        for place, group in enumerate(optimizer.param_groups):
            memory |= {f"group.{number}.{place}.{what}": value for what, value in moved(group, optimizer).items()}
    return memory


GROUP = re.compile(r"group\.\d+\.\d+")
"""What is remembered of a whole group of weights, by the numbers of the optimizer and the group."""

OF_THE_WORKFLOW = ("params", "lr", "initial_lr")
"""What a group of parameters has that is no memory of the optimizer."""


def moved(group: Mapping[str, Any], optimizer: Optimizer) -> dict[str, Any]:
    """The values of a group that the optimizer has changed by itself, such as Prodigy's estimate of the rate."""
    own = {what: value for what, value in group.items() if what not in OF_THE_WORKFLOW}
    return {what: value for what, value in own.items() if isinstance(value, Tensor) or differs(value, optimizer, what)}


def differs(value: Any, optimizer: Optimizer, what: str) -> bool:
    return isinstance(value, int | float) and value != optimizer.defaults.get(what)


FORMER_ADAFACTOR = {"row_var": "exp_avg_sq_row", "col_var": "exp_avg_sq_col", "variance": "exp_avg_sq"}
"""torch's Adafactor, which was the only one once, and transformers' names for the same means of squared gradients."""


def up_to_date(settings: OptimizerSettings, memory: Mapping[str, Any]) -> dict[str, Any]:
    """An optimizer's memory as today's implementation of that optimizer has it."""
    if settings.name != "adafactor":
        return dict(memory)
    if settings.relative_step:
        if any(name.endswith(tuple(FORMER_ADAFACTOR.values())) for name in memory):
            raise ValueError("resume: this run was trained without relative_step: switch it off in the Optimizer node")
        return dict(memory)
    found = {}
    for name, value in memory.items():
        parameter, _, what = name.rpartition(".")
        if what == "row_var":
            value = value.squeeze(-1)
        elif what == "col_var":
            value = value.squeeze(-2)
        elif what == "step":
            value = int(value)
        found[f"{parameter}.{FORMER_ADAFACTOR.get(what, what)}"] = value
    return found


def parted(values: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors among some values, for the weights file, and the others, for the facts."""
    tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
    return tensors, {name: value for name, value in values.items() if name not in tensors}


def below(tensors: Mapping[str, Any], kind: str) -> dict[str, Any]:
    return {name[len(kind) + 1 :]: value for name, value in tensors.items() if name.startswith(f"{kind}.")}


def remember(optimizer: Optimizer, memory: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
    """Give an optimizer what it knew of its parameters; rates and decays stay as the workflow sets them."""
    known: dict[str, dict[str, Any]] = defaultdict(dict)
    for name, value in memory.items():
        parameter, _, what = name.rpartition(".")
        known[parameter][what] = (
            like(value.clone(), weights.get(parameter)) if isinstance(value, Tensor) else value
        )  # not the file's own memory, which the next state could not replace
    names = {weight: name for name, weight in weights.items()}
    own = [names[parameter] for group in optimizer.param_groups for parameter in group["params"]]
    state = {place: known[name] for place, name in enumerate(own) if name in known}
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    for name in own if state else ():  # torch has brought to a weight's own format what is remembered in float32
        there = optimizer.state[weights[name]]
        for what, value in known[name].items():
            if isinstance(value, Tensor) and value.dtype != there[what].dtype:
                there[what] = value.to(there[what].device)


def like(value: Tensor, weight: Tensor | None) -> Tensor:
    """What is remembered of a weight, number by number, in parts as that one."""
    return value if weight is None or weight.shape != value.shape else parted_like(value, weight)


def check_fit(saved: Mapping[str, Tensor], weights: Mapping[str, Tensor], run: str) -> None:
    """Raises ValueError where names or shapes of the trained weights differ."""
    there = {name: tuple(value.shape) for name, value in saved.items()}
    here = {name: tuple(value.shape) for name, value in weights.items()}
    if wrong := sorted(name for name in there | here if there.get(name) != here.get(name)):
        name = wrong[0]
        raise ValueError(
            f"resume: {run!r} trained another model: {len(wrong)} weights differ, e.g. {name}, which is "
            f"{there.get(name, 'missing')} there and {here.get(name, 'missing')} here; set the model as it was, or "
            "clear resume to begin anew"
        )


def check_memory(memory: Mapping[str, Tensor], weights: Mapping[str, Tensor], run: str, needed: bool) -> None:
    """Raises ValueError where what an optimizer remembered is incomplete, or of other weights than the trained ones.

    For each weight it is a scalar, or of the weight's shape, or of some of its sides; and the same for all weights of
    as many sides. A weight that has had no gradient has none.
    """
    kinds: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for name, value in memory.items():
        parameter, _, what = name.rpartition(".")
        if not GROUP.fullmatch(parameter):
            kinds[parameter][what] = value
    foreign = sorted(kinds.keys() - weights.keys())
    odd = [
        f"{parameter}.{what}"
        for parameter, values in kinds.items()
        if parameter in weights
        for what, value in values.items()
        if not _is_part(value.shape, weights[parameter].shape)
    ]
    usual: dict[int, set[str]] = defaultdict(set)
    for parameter in kinds.keys() & weights.keys():
        usual[weights[parameter].ndim] |= kinds[parameter].keys()
    lacking = [name for name in kinds.keys() & weights.keys() if kinds[name].keys() != usual[weights[name].ndim]]
    if wrong := [*foreign, *odd, *sorted(lacking)]:
        raise ValueError(
            f"resume: what the optimizer remembered in {run!r} is not of these weights, e.g. {wrong[0]}: clear resume "
            "to begin anew"
        )
    if needed and not kinds:
        raise ValueError(
            f"resume: the state of {run!r} lacks what its optimizer remembered: clear resume to begin anew"
        )


def _is_part(shape: torch.Size, weight: torch.Size) -> bool:
    """Whether a tensor can be what an optimizer keeps of a weight: its sides are some of the weight's, or 1."""
    left = list(weight)
    for side in shape:
        if side != 1:
            if side not in left:
                return False
            left.remove(side)
    return True


def check_finite(tensors: Mapping[str, Tensor], run: str) -> None:
    """Raises ValueError for weights that are no numbers."""
    spoilt = [
        name
        for name, value in tensors.items()
        if name.startswith(("weights.", "averaged.")) and not bool(value.isfinite().all())
    ]
    if spoilt:
        raise ValueError(f"resume: the weights in the state of {run!r} are no finite numbers, e.g. {spoilt[0]}")
