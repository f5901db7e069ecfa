"""A grid of settings: ``--grid Rollout.probability=0,0.25,0.5`` says which values one input takes in turn."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Sequence

MOST = 1000
"""Runs of one sweep: more are a mistake in a grid, and nobody looks at their curves."""


def axis(text: str) -> list[str]:
    """``NODE.INPUT=A,B,C`` as ``NODE.INPUT=A`` and so on, once each.

    A value with a comma is put in double quotes, or all of them are written as a JSON list. Raises ValueError where
    there is no input or no value.
    """
    name, equals, values = text.partition("=")
    found = listed(values) if equals and name.strip() and values.strip() else []
    if not found:
        raise ValueError(f"--grid {text}: write NODE.INPUT=VALUE,VALUE, as in Rollout.probability=0,0.25")
    return list(dict.fromkeys(f"{name.strip()}={value}" for value in found))


def listed(values: str) -> list[str]:
    """The values of an axis, as text that ``--set`` reads."""
    if values.lstrip().startswith("["):
        try:
            found = json.loads(values)
        except ValueError as error:
            raise ValueError(f"--grid: {values} is no JSON list: {error}") from None
        return [value if isinstance(value, str) else json.dumps(value) for value in found]
    return [value.strip() for value in next(csv.reader(io.StringIO(values), skipinitialspace=True))]


def variants(axes: Sequence[str]) -> list[list[str]]:
    """Every combination of the axes' values, each a list of assignments for ``--set``; the last axis changes fastest.

    Raises ValueError where an axis cannot be read, is named twice, or there are too many combinations.
    """
    read = [axis(text) for text in axes]
    names = [values[0].partition("=")[0] for values in read]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"--grid: {twice} is named twice: write all of its values in one --grid")
    count = 1
    for values in read:
        count *= len(values)
    if count > MOST:
        raise ValueError(f"--grid: that makes {count} runs, and {MOST} is the limit")
    return [list(combination) for combination in itertools.product(*read)]


def labels(chosen: Sequence[Sequence[str]]) -> list[str]:
    """What tells the variants apart: the assignments that are not the same in all of them, in short."""
    common = set(chosen[0]).intersection(*chosen[1:]) if len(chosen) > 1 else set()
    return [", ".join(each for each in variant if each not in common) or "as it is" for variant in chosen]
