"""Values that the command line changed, back in the workflow."""

import json
from pathlib import Path

import pytest
from comfyui_rollout import NODE_CLASS_MAPPINGS
from comfyui_rollout.graph import object_info, to_prompt
from comfyui_rollout.graph.workflow.overrides import apply
from comfyui_rollout.graph.workflow.write_back import write_back

WORKFLOWS = sorted((Path(__file__).parents[3] / "workflows").glob("[!c]*.json"))  # not those that need ComfyUI
DEFINITIONS = object_info(NODE_CLASS_MAPPINGS)
CHANGES = ["OptimizerStep.steps=7", "OptimizerStep.seed=9", "Rollout.probability=0.125", "Rollout.sampler=rk4"]
CHANGES += ["Rollout.step_size_max=40", "OptimizerStep.run_name=other"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
@pytest.mark.parametrize("strip", [False, True], ids=["as saved", "without the named map"])
def test_the_changed_workflow_makes_the_changed_prompt(path, strip):
    """What is saved beside a run is what ran: converting it gives the very prompt."""
    workflow = json.loads(path.read_text())
    if strip:
        for node in workflow["nodes"]:
            node.pop("widgets_values_named", None)
    before = to_prompt(workflow, DEFINITIONS)
    there = {"".join(node["class_type"].split("Rollout", 1)) or "Rollout" for node in before.values()}
    after = apply(before, DEFINITIONS, [change for change in CHANGES if change.partition(".")[0] in there])
    changed = write_back(workflow, DEFINITIONS, before, after)
    assert changed is not None
    assert to_prompt(changed, DEFINITIONS) == after
    assert to_prompt(workflow, DEFINITIONS) == before


def test_nothing_changed_is_the_same_workflow():
    """Without overrides the file is kept word for word."""
    workflow = json.loads(WORKFLOWS[0].read_text())
    prompt = to_prompt(workflow, DEFINITIONS)
    assert write_back(workflow, DEFINITIONS, prompt, prompt) == workflow


def test_a_change_that_has_no_widget_is_refused():
    """A replaced link, or a node inside a subgraph, cannot be shown: the caller embeds the prompt alone."""
    workflow = json.loads(WORKFLOWS[0].read_text())
    before = to_prompt(workflow, DEFINITIONS)
    inside = {"5:1": {"class_type": "Rollout", "inputs": {"probability": 0.5}}}
    changed = {"5:1": {"class_type": "Rollout", "inputs": {"probability": 0.25}}}
    assert write_back(workflow, DEFINITIONS, inside, changed) is None
    linked = next(node_id for node_id, node in before.items() if node["class_type"] == "Rollout")
    cut = {**before, linked: {**before[linked], "inputs": before[linked]["inputs"] | {"batch": 1}}}
    assert write_back(workflow, DEFINITIONS, before, cut) is None


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_shipped_workflow_names_the_values_that_it_has(path):
    """Widgets are kept in a list and by name; whoever reads the names must not get those of another workflow."""
    workflow = json.loads(path.read_text(encoding="utf-8"))
    prompt = to_prompt(workflow, DEFINITIONS)
    for node in workflow["nodes"]:
        named, inputs = node.get("widgets_values_named") or {}, prompt.get(str(node["id"]), {}).get("inputs", {})
        assert {name: inputs[name] for name in named if name in inputs} == {
            name: value for name, value in named.items() if name in inputs
        }, f"{node['type']} {node['id']}"
