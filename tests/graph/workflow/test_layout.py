"""Prompts as workflows: nothing is lost on the way, and the canvas is readable."""

from pathlib import Path

import pytest
from canvas import check_canvas, rectangle
from comfyui_rollout import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS
from comfyui_rollout.graph import WorkflowError, load, object_info, to_prompt
from comfyui_rollout.graph.workflow.layout import TOP, Group, to_workflow
from comfyui_rollout.graph.workflow.widgets import input_specs
from hypothesis import given, settings
from hypothesis import strategies as st

WORKFLOWS = sorted((Path(__file__).parents[3] / "workflows").glob("[!c]*.json"))  # not those that need ComfyUI
OURS = object_info(NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS)
STRANGE = {
    "Make": {
        "display_name": "Maker",
        "input": {
            "required": {"noise_seed": ["INT", {}], "ckpt": [["a", "b"], {"control_after_generate": True}]},
            "optional": {"tags": ["COMBO", {"multi_select": True, "options": ["x", "y"]}], "curve": ["CURVE", {}]},
        },
        "output": ["FLOAT", ["a", "b"]],
        "output_name": ["number", "name"],
    },
    "Sink": {
        "display_name": "Sink",
        "input": {
            "required": {"gain": ["FLOAT", {"default": 1.0}], "text": ["STRING", {"multiline": True}]},
            "optional": {"value": ["FLOAT", {"forceInput": True}]},
        },
        "output": [],
    },
}
"""What our own nodes do not have: combos with control, lists, curves, widgets that take links."""


@st.composite
def prompts(draw):
    """A prompt of our own nodes: any classes, wired wherever an earlier node fits, with any values and titles."""
    ids = draw(st.lists(st.integers(1, 99).map(str) | st.sampled_from(["a", "007", "5:2"]), max_size=9, unique=True))
    prompt = {}
    for node_id in ids:
        kind = draw(st.sampled_from(sorted(OURS)))
        inputs = {}
        for spec in input_specs(OURS[kind]):
            fitting = [
                [other, slot]
                for other, node in prompt.items()
                for slot, made in enumerate(OURS[node["class_type"]]["output"])
                if made == spec.type
            ]
            if spec.is_widget:
                inputs[spec.name] = draw(values(spec))
            elif fitting and draw(st.booleans()):
                inputs[spec.name] = draw(st.sampled_from(fitting))
        title = draw(st.sampled_from([OURS[kind]["display_name"], "my own"]))
        meta = {"title": title} | draw(st.sampled_from([{}, {"cnr_id": "comfyui-rollout", "ver": "1"}]))
        prompt[node_id] = {"class_type": kind, "inputs": inputs, "_meta": meta}
    return prompt


def values(spec):
    low, high = spec.options.get("min"), spec.options.get("max")
    kinds = {
        "INT": lambda: st.integers(low, high),
        "FLOAT": lambda: st.floats(low, high, allow_nan=False),
        "BOOLEAN": st.booleans,
        "STRING": st.text,
        "COMBO": lambda: st.sampled_from(spec.choices),
    }
    return kinds[spec.type]()


@settings(max_examples=60, deadline=None)
@given(prompts(), st.sampled_from(["", "## Read me\nfirst"]))
def test_any_prompt_comes_back(prompt, note):
    """Converted, the workflow is the prompt again, whatever it holds; and it is laid out without overlaps."""
    workflow = to_workflow(prompt, OURS, note=note)
    assert to_prompt(workflow, OURS) == prompt
    check_canvas(workflow)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_shipped_workflows_come_back(path):
    """What was drawn by hand and what is laid out by the machine run the same; laying it out again changes nothing."""
    prompt = to_prompt(load(path), OURS)
    workflow = to_workflow(prompt, OURS)
    assert to_prompt(workflow, OURS) == prompt
    assert to_workflow(to_prompt(workflow, OURS), OURS) == workflow
    check_canvas(workflow)


def test_foreign_nodes_come_back():
    """Combos with controls, lists, curves, links into widgets, texts as ids, and classes that are not installed."""
    prompt = {
        "3": {
            "class_type": "Make",
            "inputs": {
                "noise_seed": 7,
                "ckpt": "b",
                "tags": {"__value__": ["x", "y"]},
                "curve": {"__type__": "CURVE", "__value__": [[0, 0], [1, 1]]},
            },
            "_meta": {"title": "Maker"},
        },
        "12": {
            "class_type": "Sink",
            "inputs": {"gain": ["3", 0], "text": "a\nb", "value": ["3", 0]},
            "_meta": {"title": "the end"},
        },
        "lost": {
            "class_type": "NotInstalled",
            "inputs": {"level": 3, "x": ["3", 1], "y": ["other", 2]},
            "_meta": {"title": "NotInstalled"},
        },
        "other": {"class_type": "NotInstalled", "inputs": {}, "_meta": {"title": "NotInstalled"}},
    }
    workflow = to_workflow(prompt, STRANGE)
    assert to_prompt(workflow, STRANGE) == prompt
    check_canvas(workflow)
    (sink,) = [node for node in workflow["nodes"] if node["type"] == "Sink"]
    assert sink["title"] == "the end"
    assert [slot["name"] for slot in sink["inputs"]] == ["value", "gain"]
    assert sink["inputs"][1]["widget"] == {"name": "gain"}
    assert sink["widgets_values"] == [1.0, "a\nb"]


def chain(*kinds):
    """Nodes 1, 2, ... each fed by the one before it."""
    return {
        str(number): {"class_type": kind, "inputs": {"x": [str(number - 1), 0]} if number > 1 else {}}
        for number, kind in enumerate(kinds, 1)
    }


PASS = {"Pass": {"display_name": "Pass", "input": {"required": {"x": ["*", {}]}}, "output": ["*"]}}


def test_groups_stand_side_by_side():
    """Each frame holds its own nodes and no other; groups keep the order given; what is in none comes last."""
    prompt = chain("Pass", "Pass", "Pass", "Pass", "Pass")
    groups = [Group("one", ["2", "1"]), Group("none of them", ["9"]), Group("two", ["3"])]
    workflow = to_workflow(prompt, PASS, groups=groups, note="hello")
    check_canvas(workflow)
    assert [frame["title"] for frame in workflow["groups"]] == ["one", "two"]
    assert len({frame["color"] for frame in workflow["groups"]}) == 2
    for frame, members in zip(workflow["groups"], [{1, 2}, {3}], strict=True):
        x, y, width, height = frame["bounding"]
        inside = set()
        for node in workflow["nodes"]:
            left, top, right, bottom = rectangle(node)
            if x <= left and right <= x + width and y <= top and bottom <= y + height:
                inside.add(node["id"])
            else:
                assert right < x or x + width < left
        assert inside == members


def test_nodes_stand_close_to_who_needs_them():
    """A source stands beside its taker, not at the far left; takers' sockets decide who stands above whom."""
    prompt = {
        **chain("Pass", "Pass", "Pass"),
        "4": {"class_type": "Pass", "inputs": {}},
        "5": {"class_type": "Two", "inputs": {"a": ["4", 0], "b": ["3", 0]}},
    }
    two = {"display_name": "Two", "input": {"required": {"a": ["*", {}], "b": ["*", {}]}}, "output": []}
    workflow = to_workflow(prompt, PASS | {"Two": two}, room={"Two": 500})
    placed = {node["id"]: node for node in workflow["nodes"]}
    assert placed[4]["pos"][0] == placed[3]["pos"][0]
    assert placed[4]["pos"][1] == TOP < placed[3]["pos"][1]
    assert placed[5]["size"][1] == to_workflow(prompt, PASS | {"Two": two})["nodes"][4]["size"][1] + 500


@pytest.mark.parametrize(
    ("prompt", "groups", "words"),
    [
        ({"1": {"class_type": "Pass", "inputs": {"x": ["7", 0]}}}, [], "node 1 is linked to node 7"),
        ({"1": {"class_type": "Pass", "inputs": {"x": ["1", 0]}}}, [], "depend on each other: 1"),
        ({"1": {"class_type": "Pass", "inputs": {"z": 3}}}, [], "has no input 'z'"),
        (chain("Pass", "Pass"), [Group("b", ["2"]), Group("a", ["1"])], "from node 1 to node 2 would run backwards"),
    ],
)
def test_what_cannot_be_drawn_is_refused(prompt, groups, words):
    """Instead of a workflow that means something else."""
    with pytest.raises(WorkflowError, match=words) as caught:
        to_workflow(prompt, PASS, groups=groups)
    assert "\n" not in str(caught.value)
