"""What optimizers remember of the weights, by the names of these: taken out of them, and given back."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ...models.sharded import parted_like
from ..loop import Trainer
from ..optimizers import OptimizerSettings

GROUP = re.compile(r"group\.\d+\.\d+")
"""What is remembered of a whole group of weights, by the numbers of the optimizer and the group."""
OF_THE_WORKFLOW = ("params", "lr", "initial_lr")
"""Entries of a parameter group that the workflow sets: no memory of the optimizer."""
FORMER_ADAFACTOR = {"row_var": "exp_avg_sq_row", "col_var": "exp_avg_sq_col", "variance": "exp_avg_sq"}
"""torch's Adafactor, which was the only one once, and transformers' names for the same means of squared gradients."""


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


def moved(group: Mapping[str, Any], optimizer: Optimizer) -> dict[str, Any]:
    """The values of a group that the optimizer has changed by itself, such as Prodigy's estimate of the rate."""
    own = {what: value for what, value in group.items() if what not in OF_THE_WORKFLOW}
    return {what: value for what, value in own.items() if isinstance(value, Tensor) or differs(value, optimizer, what)}


def differs(value: Any, optimizer: Optimizer, what: str) -> bool:
    return isinstance(value, int | float) and value != optimizer.defaults.get(what)


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
    """What is remembered of a weight; of the weight's own shape, it is split over processes as the weight is."""
    return value if weight is None or weight.shape != value.shape else parted_like(value, weight)


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
