"""What every node promises: names, tooltips, defaults, sockets."""

import json
from pathlib import Path

import pytest
from comfyui_rollout.hosts.host import Host
from comfyui_rollout.nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS, NODES
from comfyui_rollout.nodes.base import StepNode, shown, workflow_metadata

every_node = pytest.mark.parametrize("node", NODES, ids=lambda node: node.NODE_ID)


def declared(node):
    groups = node.INPUT_TYPES()
    return {**groups.get("required", {}), **groups.get("optional", {})}


@every_node
def test_every_node_introduces_itself(node):
    """Node ids are global over all packs, so ours carry our name; people read the rest."""
    assert node.NODE_ID.startswith("Rollout")
    assert node.CATEGORY.startswith("training/rollout")
    assert len(node.DESCRIPTION) > 30
    assert node.DISPLAY_NAME
    assert callable(getattr(node, node.FUNCTION))
    assert NODE_CLASS_MAPPINGS[node.NODE_ID] is node
    assert NODE_DISPLAY_NAME_MAPPINGS[node.NODE_ID] == node.DISPLAY_NAME


def test_names_are_unique():
    """Two nodes of one name would hide each other."""
    assert len(NODE_CLASS_MAPPINGS) == len(set(NODE_DISPLAY_NAME_MAPPINGS.values())) == len(NODES)


@every_node
def test_every_input_explains_itself(node):
    """A widget or socket without a tooltip is a riddle."""
    for name, (_, facts) in declared(node).items():
        assert len(facts.get("tooltip", "")) > 10, name


@every_node
def test_every_output_explains_itself(node):
    """As many names and tooltips as outputs."""
    tooltips = getattr(node, "OUTPUT_TOOLTIPS", ())
    names = getattr(node, "RETURN_NAMES", ())
    assert len(tooltips) == len(names) == len(node.RETURN_TYPES)
    assert all(len(tooltip) > 10 for tooltip in tooltips)


NATIVE = {"CLIP", "CONDITIONING", "IMAGE", "LATENT", "LORA_MODEL", "MASK", "MODEL", "VAE"}
"""Sockets of ComfyUI itself that ours meet on purpose."""


@every_node
def test_defaults_lie_within_their_limits(node):
    """A fresh node must be valid: choices hold their default, numbers lie in range and are of their type."""
    for name, (kind, facts) in declared(node).items():
        if isinstance(kind, list):
            assert facts["default"] in kind, name
        elif kind in ("INT", "FLOAT"):
            assert facts["min"] <= facts["default"] <= facts["max"], name
            assert type(facts["default"]) is (int if kind == "INT" else float), name
        elif kind in ("STRING", "BOOLEAN"):
            assert type(facts["default"]) is (str if kind == "STRING" else bool), name
        else:
            assert kind.startswith("ROLLOUT_") or kind in NATIVE, name


@every_node
def test_declarations_are_json(node):
    """They are sent to the browser."""
    json.dumps(node.INPUT_TYPES())


@every_node
def test_outputs_are_ours(node):
    """No socket of ours fits one of another pack by accident: those of ComfyUI itself are meant."""
    assert all(kind.startswith("ROLLOUT_") or kind in NATIVE for kind in node.RETURN_TYPES)


@every_node
def test_build_takes_what_is_declared(node):
    """ComfyUI calls build with the declared names: a typing error would show only when the graph runs."""
    import inspect

    function = inspect.signature(getattr(node, node.FUNCTION))
    function.bind(None, **dict.fromkeys([*declared(node), *node.INPUT_TYPES().get("hidden", {})]))


CONTRACT = {
    "Rollout": {
        "max_step_offset": 0,
        "probability": 0.0,
        "sampler": "unipc",
        "order": 2,
        "ramp_steps": 0,
        "prob_start": 0.0,
        "prob_end": 0.5,
        "ramp_shape": "linear",
        "start_step": 0,
        "strategy": "uniform",
        "step_size": 1.0,
    },
    "RolloutReflexFlowLoss": {"reflexflow": "auto", "alpha": 1.0, "beta1": 10.0, "beta2": 1.0, "target": "original"},
}

CHOICES = {
    ("Rollout", "sampler"): {"unipc", "euler", "dpm", "rk4", "heun"},
    ("Rollout", "ramp_shape"): {"linear", "cosine"},
    ("Rollout", "strategy"): {"uniform", "biased_early", "biased_late"},
    ("RolloutReflexFlowLoss", "reflexflow"): {"auto", "enable", "disable"},
}


@pytest.mark.parametrize("node_id", CONTRACT)
def test_names_and_defaults_are_a_contract(node_id):
    """Shared workflow files and people's habits depend on them: they may be added to, never changed."""
    inputs = declared(NODE_CLASS_MAPPINGS[node_id])
    assert {name: inputs[name][1]["default"] for name in CONTRACT[node_id]} == CONTRACT[node_id]


@pytest.mark.parametrize(("place", "values"), CHOICES.items(), ids=lambda value: " ".join(sorted(value)))
def test_choices_are_a_contract(place, values):
    """A value in a workflow file stays valid."""
    node_id, name = place
    assert values <= set(declared(NODE_CLASS_MAPPINGS[node_id])[name][0])


def test_sockets_are_a_contract():
    """The wires of the canonical graph."""
    found = {node.NODE_ID: node.RETURN_TYPES for node in NODES}
    assert found["RolloutNoisyBatch"] == found["Rollout"] == found["RolloutPreviewLatents"] == ("ROLLOUT_BATCH",)
    assert found["RolloutDiffusionLoss"] == found["RolloutReflexFlowLoss"] == ("ROLLOUT_LOSS",)
    assert found["RolloutNewModel"] == ("ROLLOUT_MODEL",)
    assert found["RolloutLoadModel"] == ("ROLLOUT_MODEL", "ROLLOUT_SCHEDULE")
    assert found["RolloutOptimizerStep"] == ("ROLLOUT_MODEL", "ROLLOUT_RUN")


def test_a_step_node_becomes_a_stream():
    """The stream carries the node's step, its inputs, and its name for messages."""

    class Double(StepNode):
        DISPLAY_NAME = "Double"

        def step(self, step, value):
            return 2 * value

    (stream,) = Double().build(unique_id=7, value=4)
    assert (stream.node_id, stream.title, stream.inputs) == ("7", "Double", {"value": 4})
    assert stream.function(None, **stream.inputs) == 8


def test_workflow_metadata_are_texts():
    """What a weights file carries: prompt and workflow as JSON, and nothing where there is nothing."""
    assert workflow_metadata({"1": {}}, {"workflow": {"nodes": []}}) == {
        "prompt": '{"1": {}}',
        "workflow": '{"nodes": []}',
    }
    assert workflow_metadata(None, None) == {}
    assert workflow_metadata({}, {"workflow": None}) == {"prompt": "{}"}


def test_pictures_are_told_by_their_place_below_the_output_folder():
    """ComfyUI fetches them by sub-folder and name."""
    host = Host()
    host.output_folder = Path("/out")
    expected = [{"filename": "b.png", "subfolder": "rollout/run", "type": "output"}]
    assert shown(host, Path("/out/rollout/run/b.png"))["images"] == expected
