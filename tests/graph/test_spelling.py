"""How people call a node, and what they may have meant."""

import pytest
from comfyui_rollout.graph.spelling import class_names, did_you_mean, find_class, without_prefix

INFO = {
    "Rollout": {"display_name": "Rollout"},
    "RolloutOptimizerStep": {"display_name": "Optimizer Step"},
    "KSampler": {},
}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("RolloutOptimizerStep", "RolloutOptimizerStep"),
        ("OptimizerStep", "RolloutOptimizerStep"),
        (" optimizer step ", "RolloutOptimizerStep"),
        ("rollout", "Rollout"),
        ("ksampler", "KSampler"),
        ("", None),
        ("Optimizer", None),
    ],
)
def test_a_class_is_found_as_people_call_it(name, kind):
    """By its name, without the prefix, or by what is shown, in any case; a part of a name is none."""
    assert find_class(name, INFO) == kind


def test_the_prefix_alone_is_a_name():
    """Rollout itself keeps its name."""
    assert [without_prefix(kind) for kind in INFO] == ["Rollout", "OptimizerStep", "KSampler"]


def test_all_names_are_listed_once():
    """What is searched when a name was misspelt."""
    assert class_names(INFO) == ["Rollout", "OptimizerStep", "KSampler", "Optimizer Step", "RolloutOptimizerStep"]


def test_the_nearest_names_are_asked_about():
    """Written as they are known, whatever case was typed; nothing near is no question."""
    assert did_you_mean("OPTIMISERSTEP", ["OptimizerStep", "Rollout"]) == "did you mean OptimizerStep?"
    assert did_you_mean("stap", ["Step", "step", "Stop"]) == "did you mean Stop or Step?"
    assert did_you_mean("zebra", ["OptimizerStep"]) is None
