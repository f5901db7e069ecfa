"""Numbers of parts are joined as if the whole had been measured at once."""

import math

import pytest
import torch
from comfyui_rollout.training.numbers import joined, mean_of_each
from comfyui_rollout.training.stream import Number


def values(*parts):
    return {name: float(number.value) for name, number in joined(parts).items()}


def test_a_mean_is_weighted_by_what_it_is_of():
    """No mean of means: the oracle is the mean of all values."""
    drawn = torch.randn(10)
    parts = [{"drift": Number(part.mean(), len(part))} for part in drawn.split([7, 2, 1])]
    assert values(*parts)["drift"] == pytest.approx(float(drawn.mean()), abs=1e-6)
    assert joined(parts)["drift"].of == 10


def test_the_least_and_the_largest_are_those_of_all():
    """By the end of their names, of numbers and of tensors."""
    one = {"level_min": Number(3.0), "level_max": Number(torch.tensor(8.0)), "rollout_age": Number(2.0)}
    other = {"level_min": Number(1.0), "level_max": Number(torch.tensor(9.0)), "rollout_age": Number(5.0)}
    assert values(one, other) == {"level_min": 1.0, "level_max": 9.0, "rollout_age": 5.0}


def test_what_only_stands_in_counts_where_there_is_nothing_else():
    """A part without rolled-out items says 0 of no items: the mean over those that have some is not drawn to it."""
    assert values({"length": Number(0.0, 0)}, {"length": Number(4.0, 3)}) == {"length": 4.0}
    assert values({"length": Number(0.0, 0)}, {"length": Number(2.0, 0)}) == {"length": 1.0}


def test_what_all_agree_on_stays_exactly_that():
    """A learning rate is not rounded by a mean of thirds; what is not finite stays visible."""
    assert joined([{"rate": Number(0.1)}] * 3)["rate"] == Number(0.1, 3)
    assert math.isnan(values({"rate": Number(0.1)}, {"rate": Number(math.inf)})["rate"])


def test_a_metric_of_some_pulls_is_the_mean_of_those():
    """A node need not report each time."""
    assert mean_of_each([{"a": 1.0}, {"a": 2.0, "b": 5.0}, {"b": 7.0}]) == {"a": 1.5, "b": 6.0}
