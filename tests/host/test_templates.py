"""The workflows that we ship, inside ComfyUI: all are offered, and train there as in our runner; one needs ComfyUI."""

import json
import subprocess

import pytest
import torch
from comfy_process import ONE_THREAD, PYTHON, ROOT, all_of, metrics
from comfyui_rollout.graph import load, to_prompt
from safetensors.torch import load_file
from shipped import BESIDE, DIGITS, FAMILIES, made_small

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


ALL = {**dict.fromkeys(DIGITS), **FAMILIES, **BESIDE}
RUN = """
import sys
from comfyui_rollout.__main__ import main
for name in sys.argv[1:]:
    assert main(["run", f"{name}.json", "--output", "output", "--device", "cpu"]) == 0, name
"""
"""All of them in one process, as the models' libraries take longer to load than they take to run."""


@pytest.fixture(scope="module")
def prompts(tiny_pipeline, photos):
    """Each workflow made small, with a run's name of its own."""
    small = {name: made_small(name, family and tiny_pipeline(family), photos) for name, family in ALL.items()}
    for name, prompt in small.items():
        for node in prompt.values():
            if node["class_type"] == "RolloutOptimizerStep":
                node["inputs"]["run_name"] = name
    return small


@pytest.fixture(scope="module")
def our_output(tmp_path_factory, prompts):
    """What our own runner leaves behind, with the python that runs ComfyUI."""
    place = tmp_path_factory.mktemp("runner")
    (place / "comfyui_rollout").symlink_to(ROOT, target_is_directory=True)
    for name, prompt in prompts.items():
        (place / f"{name}.json").write_text(json.dumps(prompt))
    environment = {**ONE_THREAD, "PYTHONPATH": str(place)}
    done = subprocess.run(
        [PYTHON, "-c", RUN, *prompts], cwd=place, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return place / "output"


@pytest.mark.parametrize("name", ALL)
def test_it_is_that_of_our_runner(comfy, prompts, our_output, name):
    """Where a workflow is run changes nothing: every metric and every weight is equal to the bit."""
    messages = comfy.run(prompts[name])
    assert all_of(messages, "execution_success"), all_of(messages, "execution_error")
    ours, theirs = (next((output / "rollout").glob(f"{name}_*")) for output in (our_output, comfy.output))
    assert len(metrics(ours)) == 3
    assert metrics(ours) == metrics(theirs)
    files = sorted(path.relative_to(ours) for path in (ours / "model").rglob("*.safetensors"))
    assert files
    for path in files:
        mine, other = load_file(ours / path), load_file(theirs / path)
        assert mine.keys() == other.keys()
        assert all(torch.equal(value, other[layer]) for layer, value in mine.items())
