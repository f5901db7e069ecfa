"""Numbers of parts of a batch, and of the pulls of an update, made one: as if the whole had been measured at once."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import reduce

import torch
from torch import Tensor

from .stream import Number


def joined(parts: Sequence[Mapping[str, Number]]) -> dict[str, Number]:
    """The numbers of a batch made of those of its parts: of each name the mean, the least or the largest."""
    found: dict[str, list[Number]] = defaultdict(list)
    for part in parts:
        for name, number in part.items():
            found[name].append(number)
    return {name: numbers[0] if len(numbers) == 1 else one(name, numbers) for name, numbers in found.items()}


def one(name: str, numbers: Sequence[Number]) -> Number:
    """Numbers of that name as one; stand-ins (``of`` 0) count only where there are no others."""
    numbers = [number for number in numbers if number.of] or numbers
    values, count = [number.value for number in numbers], sum(number.of for number in numbers)
    if not any(isinstance(value, Tensor) for value in values):
        if len(set(values)) == 1:
            return Number(values[0], count)  # exactly
        if not all(math.isfinite(value) for value in values):
            return Number(math.nan, count)
    if name.endswith("_min"):
        return Number(reduce(smaller, values), count)
    if name.endswith(("_max", "_age")):
        return Number(reduce(larger, values), count)
    weights = [number.of / count if count else 1 / len(numbers) for number in numbers]
    return Number(sum(weight * value for weight, value in zip(weights, values, strict=True)), count)


def smaller(one: Tensor | float, other: Tensor | float) -> Tensor | float:
    return torch.minimum(one, other) if isinstance(one, Tensor) and isinstance(other, Tensor) else min(one, other)


def larger(one: Tensor | float, other: Tensor | float) -> Tensor | float:
    return torch.maximum(one, other) if isinstance(one, Tensor) and isinstance(other, Tensor) else max(one, other)


def mean_of_each(metrics: list[dict[str, Tensor | float]]) -> dict[str, Tensor | float]:
    """The mean of every number over the pulls of one update that report it."""
    if len(metrics) == 1:
        return metrics[0]
    found: dict[str, list[Tensor | float]] = defaultdict(list)
    for each in metrics:
        for name, value in each.items():
            found[name].append(value)
    return {name: sum(values) / len(values) for name, values in found.items()}
