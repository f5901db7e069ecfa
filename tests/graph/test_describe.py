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
