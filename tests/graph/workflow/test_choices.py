"""Text with choices: one of {a|b|c}, comments left out, and nothing that takes for ever."""

import random

import pytest
from comfyui_rollout.graph import WorkflowError, to_prompt
from saved_flows import INFO


@pytest.mark.parametrize(
    ("text", "results"),
    [
        ("a {x|y} b", {"a x b", "a y b"}),
        ("{a|{b|c}} // gone\nd /* e\nf */g", {"a \nd g", "b \nd g", "c \nd g"}),
        (r"\{a\|b\}", {"{a|b}"}),
        ("{|}open {x", {"open x"}),
        ("http://x", {"http:"}),
        ("", {""}),
    ],
)
def test_dynamic_prompts(flow, node, text, results):
    """{a|b} is chosen and comments go, as in the frontend; the default generator makes it repeatable."""
    workflow = flow([node(1, "Text", widgets_values=[text])], [])
    found = {to_prompt(workflow, INFO, random.Random(seed))["1"]["inputs"]["text"] for seed in range(40)}
    assert found == results
    assert to_prompt(workflow, INFO) == to_prompt(workflow, INFO)


def test_deeply_nested_choices_are_an_error(flow, node):
    """A hostile text must not exhaust the stack."""
    with pytest.raises(WorkflowError, match="nested"):
        to_prompt(flow([node(1, "Text", widgets_values=["{" * 5000])], []), INFO)
