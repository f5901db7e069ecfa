"""Values changed from a command line: nodes as people call them, values as they write them, and near misses."""

import copy

import pytest
from comfyui_rollout.graph.workflow.overrides import OverrideError, apply

INFO = {
    "RolloutOptimizerStep": {
        "input": {
            "required": {
                "model": ["MODEL"],
                "steps": ["INT", {"min": 1, "max": 1000}],
                "learning_rate": ["FLOAT", {"min": 0.0}],
                "name": ["STRING", {}],
                "ema": ["BOOLEAN", {}],
            },
            "optional": {"optimizer": [["adamw", "muon", 8], {}], "gain": ["FLOAT", {"forceInput": True}]},
        }
    },
    "Rollout": {"input": {"required": {"probability": ["FLOAT", {"min": 0.0, "max": 1.0}]}}},
    "RolloutMulti": {"input": {"required": {"pick": ["COMBO", {"options": ["a", "b"], "multiselect": True}]}}},
}


@pytest.fixture
def prompt():
    return {
        "4": {
            "class_type": "RolloutOptimizerStep",
            "inputs": {"model": ["5:2", 0], "steps": ["5:2", 0], "learning_rate": 0.1},
            "_meta": {"title": "Train it. v=2"},
        },
        "5:2": {"class_type": "Rollout", "inputs": {"probability": 0.0}, "_meta": {"title": "Rollout"}},
        "6": {"class_type": "RolloutMulti", "inputs": {}, "_meta": {"title": "one"}},
        "7": {"class_type": "RolloutMulti", "inputs": {}, "_meta": {"title": "ONE"}},
    }


@pytest.mark.parametrize(
    ("assignment", "node_id", "name", "value"),
    [
        ("4.steps=100", "4", "steps", 100),
        ("5:2.probability=0.5", "5:2", "probability", 0.5),
        ("RolloutOptimizerStep.steps=100", "4", "steps", 100),
        ("OptimizerStep.steps=100", "4", "steps", 100),
        ("optimizerstep.steps=7", "4", "steps", 7),
        ("Rollout.probability=0.5", "5:2", "probability", 0.5),
        ("rollout.probability=1", "5:2", "probability", 1.0),
        ("Train it. v=2.steps=3", "4", "steps", 3),
        ("Train it. v=2.name=a.b=c", "4", "name", "a.b=c"),
        ("4.name=", "4", "name", ""),
        ("4.name= x ", "4", "name", " x "),
        ("4.ema=Yes", "4", "ema", True),
        ("4.ema=0", "4", "ema", False),
        ("4.optimizer=muon", "4", "optimizer", "muon"),
        ("4.optimizer=8", "4", "optimizer", 8),
        ("4.learning_rate=1e-4", "4", "learning_rate", 1e-4),
        ("4.gain=2", "4", "gain", 2.0),
        ("one.pick=a, b", "6", "pick", {"__value__": ["a", "b"]}),
        ("ONE.pick=a", "7", "pick", {"__value__": ["a"]}),
    ],
)
def test_finds_the_node_and_reads_the_value(prompt, assignment, node_id, name, value):
    """By id, title, class or short class; the value has the declared type; only that input changes; a link goes."""
    before = copy.deepcopy(prompt)
    changed = apply(prompt, INFO, [assignment])
    assert prompt == before
    found = changed[node_id]["inputs"][name]
    assert found == value
    assert type(found) is type(value)
    before[node_id]["inputs"][name] = value
    assert changed == before


def test_of_nodes_with_one_title_that_with_the_input_counts(prompt):
    """As of "my LoRA", which trains and is saved."""
    prompt["5:2"]["_meta"]["title"] = prompt["4"]["_meta"]["title"]
    assert apply(prompt, INFO, ["Train it. v=2.probability=0.5"])["5:2"]["inputs"]["probability"] == 0.5
    assert apply(prompt, INFO, ["Train it. v=2.steps=3"])["4"]["inputs"]["steps"] == 3


@pytest.mark.parametrize(
    ("assignment", "says"),
    [
        ("steps=100", "write NODE.INPUT=VALUE"),
        ("4.steps", "write NODE.INPUT=VALUE"),
        ("", "write NODE.INPUT=VALUE"),
        ("OptimiserStep.steps=100", "no node 'OptimiserStep'; did you mean"),
        ("zzz.steps=100", "no node 'zzz'; its nodes: 4, 5:2"),
        ("4.step=100", "has no input 'step'; did you mean steps? its inputs: steps, learning_rate, name"),
        ("4.zzz=100", "node 4 (RolloutOptimizerStep) has no input 'zzz'; its inputs: steps, learning_rate, name"),
        ("4.optimizer=adam", "'adam' is not one of adamw, muon, 8; did you mean adamw?"),
        ("OptimizerSteps.steps=3", "did you mean OptimizerStep"),
        ("Multi.pick=a", "fits 2 nodes; use the id of one of them: 6, 7"),
        ("RolloutMulti.pick=a", "fits 2 nodes"),
        ("One.pick=a", "fits 2 nodes"),
        ("4.model=3", "takes a link (MODEL), not a value"),
        ("4.steps=abc", "node 4 (RolloutOptimizerStep) input steps: 'abc' is not a whole number"),
        ("4.steps=1.5", "'1.5' is not a whole number"),
        ("4.learning_rate=fast", "'fast' is not a number"),
        ("4.learning_rate=nan", "'nan' is not a number"),
        ("4.steps=0", "0 is less than the minimum, 1"),
        ("4.steps=1001", "1001 is more than the maximum, 1000"),
        ("4.ema=maybe", "'maybe' is neither true nor false"),
        ("4.optimizer=sgd", "'sgd' is not one of adamw, muon, 8"),
        ("6.pick=a,c", "'c' is not one of a, b"),
    ],
)
def test_says_what_would_have_been_possible(prompt, assignment, says):
    """A wrong assignment is one line with the remedy in it."""
    with pytest.raises(OverrideError) as caught:
        apply(prompt, INFO, [assignment])
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_name_on_the_canvas_works_in_api_format():
    """A prompt without titles knows its nodes by class; people know them by what the editor shows."""
    info = {"RolloutOptimizerStep": INFO["RolloutOptimizerStep"] | {"display_name": "Optimizer Step"}}
    prompt = {"4": {"class_type": "RolloutOptimizerStep", "inputs": {"steps": 1}}}
    for name in ("Optimizer Step", "optimizer step", "OptimizerStep", "RolloutOptimizerStep", "4"):
        assert apply(prompt, info, [f"{name}.steps=7"])["4"]["inputs"]["steps"] == 7


def test_later_assignments_win(prompt):
    """In the order of the command line."""
    assert apply(prompt, INFO, ["4.steps=1", "OptimizerStep.steps=2"])["4"]["inputs"]["steps"] == 2
