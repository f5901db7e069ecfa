"""One constant against its declaration."""

import json

import pytest
from comfyui_rollout.graph import validate


def test_values_are_converted_in_a_copy(mapping, prompt):
    """Numbers written as text become numbers, boxed lists are unboxed, and the argument stays as it was."""
    prompt["1"]["inputs"] |= {"x": "2.5", "n": 3.7, "flag": 1, "text": 5, "mode": {"__value__": "slow"}}
    before = json.dumps(prompt)
    validation = validate(prompt, mapping)
    assert validation.error is None
    assert validation.outputs == ["2"]
    converted = validation.prompt["1"]["inputs"]
    assert converted == {"x": 2.5, "n": 3, "seed": 1, "mode": "slow", "flag": True, "text": "5"}
    assert json.dumps(prompt) == before


@pytest.mark.parametrize("count", [20, 21])
def test_long_lists_of_options_are_not_repeated(make_class, count):
    """Thousands of file names do not belong in an error."""
    options = [f"o{i}" for i in range(count)]
    mapping = {"K": make_class(lambda a: (), {"required": {"a": (options, {})}}, (), OUTPUT_NODE=True)}
    error = validate({"1": {"class_type": "K", "inputs": {"a": "x"}}}, mapping).node_errors["1"]["errors"][0]
    assert ("list of length" in error["details"]) == (count > 20)
    assert (error["extra_info"]["input_config"] is None) == (count > 20)


def test_multiselect(make_class):
    """Each chosen option is checked, and a list is told from a link by its box."""
    spec = ("COMBO", {"options": ["p", "q"], "multiselect": True})
    mapping = {"K": make_class(lambda a: (), {"required": {"a": spec}}, (), OUTPUT_NODE=True)}
    good = {"1": {"class_type": "K", "inputs": {"a": {"__value__": ["p", "q"]}}}}
    bad = {"1": {"class_type": "K", "inputs": {"a": {"__value__": ["p", "x"]}}}}
    assert validate(good, mapping).error is None
    assert validate(bad, mapping).node_errors["1"]["errors"][0]["details"] == "a: 'x' not in ['p', 'q']"
