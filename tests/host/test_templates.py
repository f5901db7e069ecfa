"""The workflows that we ship, inside ComfyUI: all are offered, and the one that needs ComfyUI runs there."""

import json

import pytest
from comfy_process import ROOT, all_of
from comfyui_rollout.graph import load, to_prompt

NEEDS_COMFYUI = sorted((ROOT / "workflows").glob("comfyui_*.json"))


@pytest.fixture(scope="module")
def definitions(comfy):
    return json.loads(comfy.get("/object_info"))


def test_all_are_offered(comfy):
    """In ComfyUI's template browser, each with its picture."""
    offered = json.loads(comfy.get("/workflow_templates"))
    ours = {path.stem for path in (ROOT / "workflows").glob("*.json")}
    assert ours in [set(names) for names in offered.values()]
    assert {path.stem for path in (ROOT / "workflows").glob("*.jpg")} >= ours


@pytest.mark.parametrize("path", NEEDS_COMFYUI, ids=lambda path: path.stem)
def test_it_says_what_to_change_first(path):
    """As every shipped workflow, in a note and in the README."""
    notes = [node["widgets_values"] for node in load(path)["nodes"] if node["type"] == "MarkdownNote"]
    assert any("Change first" in str(note) for note in notes)
    assert f"`{path.name}`" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("path", NEEDS_COMFYUI, ids=lambda path: path.stem)
def test_it_runs(comfy, path, definitions, photos):
    """With a tiny model in place of the loader's, and images of its size: two pictures side by side come out."""
    prompt = to_prompt(load(path), definitions)
    for node in prompt.values():
        small = {"width": 64, "height": 64, "steps": 2, "size": 64}
        node["inputs"] |= {name: value for name, value in small.items() if name in node["inputs"]}
        if node["class_type"] == "CheckpointLoaderSimple":
            node |= {"class_type": "TinyComfy", "inputs": {"family": "sd"}}
        if node["class_type"] == "RolloutImageFolderDataset":
            node["inputs"]["folder"] = str(photos / "pagoda")
    messages = comfy.run(prompt, workflow=load(path))
    assert all_of(messages, "execution_success"), all_of(messages, "execution_error")
    shown = [data for data in all_of(messages, "executed") if prompt[data["node"]]["class_type"] == "PreviewImage"]
    assert len(shown) == 2
