"""The files of a run's states: what they are called, and which of them led to the newest one."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...files.whole import read_object, write_text

STATE = "state"
POINTER = "state.json"
LINE = "states"
"""In the pointer: the names of the run's states, the newest first."""
NAMED = re.compile(r"step_(\d{6,})(?:-(\d+))?\.safetensors")
BEFORE = "state.safetensors"
"""The tensors in runs of versions before, whose facts are in ``state.json``."""
FACTS = "run.json"


def states_in(folder: Path) -> list[Path]:
    """The files of a run's states, the oldest first."""
    found = [path for path in (folder / STATE).glob("step_*.safetensors") if NAMED.fullmatch(path.name)]
    return sorted(found, key=order_of)


def order_of(path: Path) -> tuple[int, int]:
    """The step of a state, and how often the run had come there by then."""
    named = NAMED.fullmatch(path.name)
    assert named is not None
    return int(named[1]), int(named[2] or 1)


def step_of(path: Path) -> int:
    return order_of(path)[0]


def free_name(state: Path, step: int) -> Path:
    """A name for a new state: a run that went back may come to the same step again."""
    path, number = state / f"step_{step:06d}.safetensors", 1
    while path.exists():
        number += 1
        path = path.with_name(f"step_{step:06d}-{number}.safetensors")
    return path


def candidates_in(folder: Path) -> tuple[list[Path], list[str]]:
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
        return ([tensors, *found], []) if tensors.is_file() else (found, ["its tensors are missing"])
    names = content[LINE]
    if not (
        isinstance(names, list) and names and all(isinstance(name, str) and NAMED.fullmatch(name) for name in names)
    ):
        return found, [f"{pointer.name} names no states"]
    line = [pointer.with_name(name) for name in names]
    return [path for path in line if path.is_file()], [f"{path.name} is missing" for path in line if not path.is_file()]


def line_of(folder: Path) -> list[Path]:
    """The states that led to the newest one, which is the first, as far as they are there."""
    return [path for path in candidates_in(folder)[0] if path.name != BEFORE and path.is_file()]


def name_states(line: Sequence[Path]) -> None:
    """Write the pointer: the states of a run, the newest first."""
    write_text(line[0].parent / POINTER, json.dumps({LINE: [path.name for path in line]}))


def point_at(path: Path) -> None:
    """From now on the run goes on from this state, and from none that came after it."""
    line = line_of(path.parent.parent)
    older = line[line.index(path) + 1 :] if path in line else (one for one in line if order_of(one) < order_of(path))
    name_states([path, *older])


def facts_in(folder: Path) -> dict[str, Any]:
    """What a run's run.json says; nothing where it is damaged: that is no reason not to go on with the run."""
    try:
        return read_object(folder / FACTS)
    except (ValueError, OSError):
        return {}


def planned_steps(folder: Path) -> int | None:
    return facts_in(folder).get("steps")
