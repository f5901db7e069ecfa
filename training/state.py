"""The state of a training, from which it goes on as if it had never stopped.

Random numbers depend on (seed, node, step), batches on their position, and the learning rate on the step. So the state
is what the updates themselves have made: weights, what the optimizer remembers, averaged weights, the loss scale, and
what nodes keep from step to step and say how (``Kept`` in stream.py).
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..files.weights import check_weights, read_weights, save_weights
from ..files.whole import read_object, whole_or_nothing, write_text
from .loop import Trainer
from .optimizers import OptimizerSettings

STATE = "state"
TENSORS = "state.safetensors"
FACTS = "state.json"


@dataclass(frozen=True)
class SavedState:
    """What is known of a saved state before its tensors are read."""

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
    folder: Path = Path()
    """The run's folder."""

    def check(self, steps: int, optimizer: str) -> None:
        """Raises ValueError, before anything is loaded, where a training of so many steps cannot go on from here."""
        name = self.folder.name
        if steps <= self.step:
            raise ValueError(f"resume: {name!r} has done {self.step} steps: set steps to more, to train it further")
        if optimizer != self.optimizer:
            raise ValueError(
                f"resume: {name!r} was trained with {self.optimizer}, and now the optimizer is {optimizer}: "
                f"choose {self.optimizer} again, or clear resume to begin anew"
            )

    def restore(self, trainer: Trainer) -> None:
        """Put the state into a new trainer. Raises ValueError, before anything is changed, if it does not fit."""
        tensors = read_weights(self.folder / STATE / TENSORS)
        weights, averages, memory = (below(tensors, kind) for kind in ("weights", "averaged", "optimizer"))
        check_fit(weights, trainer.weights, self.folder.name)
        with torch.no_grad():
            for name, weight in trainer.weights.items():
                weight.copy_(weights[name])
        memory = up_to_date(trainer.settings, {**memory, **self.numbers})
        for number, optimizer in enumerate(trainer.optimizers):
            remember(optimizer, memory, trainer.weights)
            for place, group in enumerate(optimizer.param_groups):
                group.update(below(memory, f"group.{number}.{place}"))
        if average := trainer.run.averaged_weights:
            average.optimization_step = self.averaged_updates or 0
            for name, shadow in zip(trainer.weights, average.shadow_params, strict=True):
                shadow.copy_(averages.get(name, weights[name]))
        if self.loss_scale and trainer.scaler.is_enabled():
            trainer.scaler.load_state_dict(dict(self.loss_scale))
        trainer.run.restored = {
            node_id: {**values, **below(tensors, f"kept.{node_id}")} for node_id, values in self.kept.items()
        }

    def in_words(self, trainer: Trainer) -> str:
        """One line for the user, who wants to be sure of what was restored."""
        rate = trainer.schedulers[0].get_last_lr()[0]
        average = ["averaged weights"] if self.averaged_updates and trainer.run.averaged_weights else []
        parts = ["weights", self.optimizer, *average, f"learning rate {rate:.3g}", f"seed {self.seed}"]
        return f"{self.folder.name} goes on after step {self.step} of {trainer.steps}: {', '.join(parts)} restored"


def save_state(folder: Path, trainer: Trainer) -> None:
    """Keep the trainer's state in a run's folder, in the place of an older one."""
    average, kept = trainer.run.averaged_weights, trainer.run.state_of_kept()
    facts = SavedState(
        step=trainer.done,
        seed=trainer.run.seed,
        optimizer=trainer.settings.name,
        averaged_updates=average.optimization_step if average else None,
        numbers=parted(memory_of(trainer))[1],
        loss_scale=trainer.scaler.state_dict(),
        kept={node_id: parted(values)[1] for node_id, values in kept.items()},
    )
    with whole_or_nothing(folder / STATE) as unfinished:
        unfinished.mkdir()
        tensors = tensors_of(trainer)
        for node_id, values in kept.items():
            tensors |= {f"kept.{node_id}.{name}": value for name, value in parted(values)[0].items()}
        save_weights(unfinished / TENSORS, tensors, {})
        write_text(unfinished / FACTS, json.dumps({k: v for k, v in asdict(facts).items() if k != "folder"}, indent=2))


def find_state(folder: Path) -> SavedState:
    """The state in a run's folder. Raises ValueError, before its tensors are read, if there is none to use."""
    if not folder.is_dir():
        raise ValueError(f"resume: there is no run {folder.name!r}: {str(folder)!r} is no folder")
    path, tensors = folder / STATE / FACTS, folder / STATE / TENSORS
    if not (path.is_file() and tensors.is_file()):
        raise ValueError(
            f"resume: {folder.name!r} has no state to go on from; it is kept at each checkpoint (checkpoint_every), at "
            "a stop and at the end: clear resume to begin anew"
        )
    facts = read_object(path)
    check_weights(tensors)
    try:
        return SavedState(folder=folder, **facts)
    except TypeError as error:
        raise ValueError(f"resume: {path} describes no state that we know ({error}): clear resume") from error


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
        found[name] = value.clone() if value.data_ptr() in places else value
        places.add(value.data_ptr())
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
            value.clone() if isinstance(value, Tensor) else value
        )  # not the file's own memory, which the next state could not replace
    names = {weight: name for name, weight in weights.items()}
    own = [names[parameter] for group in optimizer.param_groups for parameter in group["params"]]
    state = {place: known[name] for place, name in enumerate(own) if name in known}
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


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
