"""The state to go on from: the newest one in a run's folder that is whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...files.lock import is_held
from ...files.weights import digest_of, read_metadata, read_weights
from ...files.whole import read_object, tidy
from .line import BEFORE, FACTS, POINTER, STATE, candidates_in, facts_in, states_in, step_of
from .saved import SavedState


class Unusable(ValueError):
    """A state that one cannot go on from, and why."""


def find_state(folder: Path | str, step: int | None = None) -> SavedState:
    """The newest whole state in a run's folder, or the one after ``step`` updates; its checksum is looked at.

    Raises ValueError if there is none to use, saying of each why.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"resume: there is no run {folder.name!r}: {str(folder)!r} is no folder")
    if not (folder / STATE).is_dir() and not is_held(folder):
        tidy(folder)  # versions before could be killed when the old state had left and the new one was still to come
    candidates, notes = candidates_in(folder)
    if step is not None:
        there = sorted({step_of(path) for path in states_in(folder)})
        candidates = [path for path in reversed(states_in(folder)) if step_of(path) == step]
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
    if state.step != step_of(path):
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
    own = facts_in(state.folder).get("id")
    if own is not None and state.run != own:
        raise Unusable("it is of another run")
    if own is None and state.run and (state.folder / FACTS).is_file() and facts_in(state.folder):
        raise Unusable("it is of another run")
