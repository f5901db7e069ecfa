"""Graphs folded into one node, in ComfyUI's library: listed there, and run as what they hold."""

import json

import pytest
from comfy_process import ROOT, all_of, read_json
from comfyui_rollout.graph import to_prompt

FILES = sorted((ROOT / "subgraphs").glob("*.json"))


@pytest.fixture(scope="module")
def offered(comfy):
    """By name, what ComfyUI's frontend gets of ours."""
    listed = json.loads(comfy.get("/global_subgraphs"))
    ours = {name: told for name, told in listed.items() if "rollout" in told["info"]["node_pack"]}
    return {told["name"]: json.loads(comfy.get(f"/global_subgraphs/{name}"))["data"] for name, told in ours.items()}


def test_all_are_listed(offered):
    """With the whole file each."""
    assert {name: json.loads(text) for name, text in offered.items()} == {
        path.stem: json.loads(path.read_text()) for path in FILES
    }


@pytest.fixture
def small(comfy, photos):
    """``small(workflow)``: as a prompt of a few seconds."""

    def expand(workflow, **changes):
        prompt = to_prompt(workflow, json.loads(comfy.get("/object_info")))
        for node in prompt.values():
            kind, inputs = node["class_type"], node["inputs"]
            inputs |= {name: value for name, value in changes.items() if name in inputs}
            if kind == "RolloutSamplePrompts":
                inputs |= {"width": 64, "height": 64, "steps": 2}
        return prompt

    return lambda workflow: expand(
        workflow, folder=str(photos / "pagoda"), size=64, steps=2, storage="fp32", precision="fp32"
    )


def test_on_comfyuis_model(comfy, offered, small):
    """The node with a loader before it and KSampler's MODEL behind it: trained, saved, and given out."""
    workflow = json.loads(offered["LoRA Training in One Node (ComfyUI Model)"])
    (node,) = workflow["nodes"]
    workflow["nodes"].append({"id": 9, "type": "TinyComfy", "widgets_values": ["sd"], "inputs": [], "outputs": []})
    workflow["nodes"].append({"id": 8, "type": "SaveLoRA", "widgets_values": ["loras/one_node"], "inputs": [
        {"name": "lora", "type": "LORA_MODEL", "link": 4}
    ]})  # fmt: skip
    workflow["links"] = [[slot + 1, 9, slot, node["id"], slot, node["inputs"][slot]["type"]] for slot in range(3)]
    workflow["links"].append([4, node["id"], 1, 8, 0, "LORA_MODEL"])
    for slot in range(3):
        node["inputs"][slot]["link"] = slot + 1
    messages = comfy.run(small(workflow))
    assert all_of(messages, "execution_success"), all_of(messages, "execution_error")
    (folder,) = (comfy.output / "rollout").glob("lora_*")
    assert read_json(folder / "run.json")["status"] == "finished"
    assert list((comfy.base / "models" / "loras").glob("my_lora_*.safetensors"))
    assert list((comfy.output / "loras").glob("one_node_*.safetensors"))


def test_on_a_checkpoint(comfy, offered, small, tiny_pipeline):
    """Alone on the canvas."""
    workflow = json.loads(offered["LoRA Training in One Node"])
    (node,) = workflow["nodes"]
    place = [slot["name"] for slot in node["inputs"]].index("path")
    node["widgets_values"][place] = str(tiny_pipeline("sd"))
    messages = comfy.run(small(workflow))
    assert all_of(messages, "execution_success"), all_of(messages, "execution_error")
