"""What a terminal says of a workflow that cannot run."""

import pytest
from comfyui_rollout.graph import validate
from comfyui_rollout.graph.describe import describe


class Choosy:
    """One check looks at two inputs, as ours do where only both together say what is wrong."""

    RETURN_TYPES = ()
    FUNCTION = "run"
    OUTPUT_NODE = True
    verdict = True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"checkpoint": ("STRING", {}), "path": ("STRING", {})}}

    @classmethod
    def VALIDATE_INPUTS(cls, checkpoint, path):
        return cls.verdict


@pytest.mark.parametrize(
    ("verdict", "line"),
    [
        ("path: name a folder", "node 1 (Choosy): input path: name a folder; change the value"),
        ("nothing fits", "node 1 (Choosy): input checkpoint: nothing fits; change the value"),
    ],
)
def test_one_check_of_two_inputs_is_told_once(verdict, line):
    """And of the input that it names, so that the user knows where to look."""
    kind = type("Choosy", (Choosy,), {"verdict": verdict})
    prompt = {"1": {"class_type": "Choosy", "inputs": {"checkpoint": "a", "path": "b"}}}
    assert describe(validate(prompt, {"Choosy": kind}), prompt) == [line]


def test_a_check_that_gives_no_reason_is_told_of_every_input():
    """Nobody knows which one it meant."""
    kind = type("Choosy", (Choosy,), {"verdict": False})
    prompt = {"1": {"class_type": "Choosy", "inputs": {"checkpoint": "a", "path": "b"}}}
    assert len(describe(validate(prompt, {"Choosy": kind}), prompt)) == 2


@pytest.mark.parametrize(
    ("node_id", "inputs", "line"),
    [
        ("1", {"n": 0}, "node 1 'DV' (DummyValue): input 'n': value 0 smaller than min of 1; raise the value"),
        ("1", {"n": "abc"}, "node 1 'DV' (DummyValue): input 'n': 'abc' is no INT; give it a value of the type"),
        ("1", {"mode": "zzz"}, "input mode: 'zzz' not in ['fast', 'slow']; choose one of the options"),
        (
            "2",
            {"value": ["1", 1]},
            "node 2 (DummySink): input 'value' takes DUMMY_VALUE, but is linked to FLOAT; link an",
        ),
        (
            "2",
            {"value": ["99", 0]},
            "node 2 (DummySink): node 2 input value is linked to node 99, which does not exist;",
        ),
        ("2", {"value": ["1", 1, 2]}, "input 'value' is a list that is no link"),
        (
            "1",
            {"opt": ["1", 0]},
            "it depends on itself: 1 (DummyValue) -> 1 (DummyValue); remove one link of the cycle",
        ),
    ],
)
def test_describe(mapping, prompt, node_id, inputs, line):
    """A terminal gets one plain line per error: the node, the input, the remedy."""
    prompt[node_id]["inputs"] |= inputs
    lines = describe(validate(prompt, mapping), prompt)
    assert len(lines) == 1
    assert line in lines[0]


def test_describe_what_concerns_the_whole(mapping, prompt):
    """Missing classes and outputs are said, and a good prompt has nothing to say."""
    assert describe(validate(prompt, mapping), prompt) == []
    assert "no output node" in describe(validate({}, mapping), {})[0]
    prompt["2"] |= {"class_type": "Gone", "_meta": {"title": "My sink"}}
    assert describe(validate(prompt, mapping), prompt)[0].startswith("node 2 'My sink' (Gone): no installed pack has")
