"""The pack inside a real ComfyUI: it trains there as in our own runner, and people see it, stop it and hear of errors.

COMFYUI_PATH=/path/to/ComfyUI COMFYUI_PYTHON=/its/python python -m pytest tests/test_comfyui.py
"""

import io
import json
import os
import shutil
import subprocess
from pathlib import Path
from urllib.parse import urlencode

import pytest
import torch
from comfy_process import ONE_THREAD, PYTHON, SKIPPED, all_of, metrics, read_json, started
from comfyui_rollout import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS
from comfyui_rollout.graph import load, object_info, to_prompt
from comfyui_rollout.graph.workflow.overrides import apply
from PIL import Image
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[1]
QUICKSTART = ROOT / "workflows" / "quickstart_digits.json"
STEPS = 12
SMALL = [
    f"OptimizerStep.steps={STEPS}",
    "OptimizerStep.preview_every=4",
    "Rollout.ramp_steps=0",
    "Rollout.probability=0.5",
    "SampleImages.steps=4",
    "SampleImages.count=1",
]

pytestmark = pytest.mark.skipif("COMFYUI_PATH" not in os.environ, reason=SKIPPED)


@pytest.fixture(scope="session")
def comfy(tmp_path_factory):
    """A real ComfyUI that has our pack, and no other, in a folder of its own."""
    with started(tmp_path_factory.mktemp("comfyui")) as comfy:
        yield comfy


def quickstart(*changes):
    """The quickstart as an API prompt, made small, with these changes."""
    definitions = object_info(NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS)
    return apply(to_prompt(load(QUICKSTART), definitions), definitions, [*SMALL, *changes])


def node_id(prompt, kind):
    return next(name for name, node in prompt.items() if node["class_type"] == kind)


def weights(run_folder):
    return load_file(run_folder / "model" / "diffusion_pytorch_model.safetensors")


@pytest.fixture(scope="session")
def prompt():
    return quickstart("OptimizerStep.run_name=twice")


@pytest.fixture(scope="session")
def twice(comfy, prompt):
    """What a client hears when the same prompt is queued twice."""
    return [comfy.run(prompt, workflow=load(QUICKSTART)) for _ in range(2)]


@pytest.fixture(scope="session")
def folders(comfy, twice):
    """What the two runs left behind."""
    return sorted((comfy.output / "rollout").glob("twice_*"))


@pytest.fixture(scope="session")
def our_folder(tmp_path_factory):
    """What our own runner leaves behind, with the python that runs ComfyUI."""
    place = tmp_path_factory.mktemp("runner")
    (place / "comfyui_rollout").symlink_to(ROOT, target_is_directory=True)
    changes = [word for change in SMALL for word in ("--set", change)]
    command = [
        PYTHON,
        "-m",
        "comfyui_rollout",
        "run",
        str(QUICKSTART),
        "--device",
        "cpu",
        "--output",
        "output",
        *changes,
    ]
    done = subprocess.run(
        command, cwd=place, env={**ONE_THREAD, "PYTHONPATH": str(place)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return next((place / "output" / "rollout").iterdir())


def test_the_pack_loads(comfy):
    """Every node is there after start-up, and ComfyUI has nothing to complain about."""
    theirs = json.loads(comfy.get("/object_info"))
    assert not NODE_CLASS_MAPPINGS.keys() - theirs.keys()
    ours = [line for line in comfy.log.read_text().splitlines() if "comfyui-rollout" in line]
    assert ours
    assert [line for line in ours if "FAILED" in line or "Cannot import" in line] == []


def test_comfyui_describes_our_nodes_as_we_do(comfy):
    """A browser sees the same nodes, inputs and tooltips from our server as from ComfyUI."""
    theirs = json.loads(comfy.get("/object_info"))
    for name, ours in object_info(NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS).items():
        if name == "RolloutOptimizer":  # whose choices are those of the libraries that each of the two has
            for described in (ours, theirs[name]):
                described["input"]["required"]["optimizer"][0] = []
        assert {field: theirs[name][field] for field in ours} == ours


def test_the_quickstart_trains(comfy, prompt, twice, folders):
    """A queued workflow leaves a whole run in ComfyUI's output folder, and shows its pictures on the node."""
    assert all_of(twice[0], "execution_success")
    assert read_json(folders[0] / "run.json")["status"] == "finished"
    assert [row["step"] for row in metrics(folders[0])] == list(range(STEPS))
    assert list(folders[0].glob("samples/*.png"))
    assert list(folders[0].glob("rollouts/*.png"))
    trained = next(
        data for data in all_of(twice[0], "executed") if data["node"] == node_id(prompt, "RolloutOptimizerStep")
    )
    for image in trained["output"]["images"]:
        assert Image.open(io.BytesIO(comfy.get(f"/view?{urlencode(image)}"))).format == "PNG"


def test_queued_again_it_trains_again(prompt, twice, folders):
    """The trainer never counts as cached, all before it does, and the second run is the first one to the bit."""
    again = {node_id(prompt, kind) for kind in ("RolloutOptimizerStep", "RolloutSaveModel", "RolloutPlotMetrics")}
    assert [set(data["nodes"]) for data in all_of(twice[1], "execution_cached")] == [prompt.keys() - again]
    assert len(folders) == 2
    assert metrics(folders[0]) == metrics(folders[1])


@pytest.mark.parametrize("run", [0, 1])
def test_the_nodes_of_the_step_show_progress(prompt, twice, run):
    """People see each node of the training step move, whether it was built just now or cached, and none stays busy."""
    states = [data["nodes"] for data in all_of(twice[run], "progress_state")]
    for kind in ("RolloutNoisyBatch", "Rollout", "RolloutReflexFlowLoss", "RolloutOptimizerStep"):
        seen = [state[node] for state in states if (node := node_id(prompt, kind)) in state]
        assert any(0 < node["value"] < node["max"] == STEPS for node in seen if node["state"] == "running")
    assert {name: node["state"] for name, node in states[-1].items() if node["state"] != "finished"} == {}


@pytest.mark.parametrize("run", [0, 1])
def test_previews_reach_their_nodes(prompt, twice, run):
    """The browser is sent a picture of what passes through Noisy Batch and Rollout each time it was asked for."""
    pictures = all_of(twice[run], "preview")
    for kind in ("RolloutNoisyBatch", "Rollout"):
        shown = [data for data in pictures if data["display_node_id"] == node_id(prompt, kind)]
        assert len(shown) == STEPS / 4
        assert {(data["image_type"], data["picture"].format) for data in shown} == {("image/jpeg", "JPEG")}


def test_metrics_are_sent_while_it_trains(prompt, twice):
    """A curve can be drawn live: every step's numbers arrive once, in order."""
    sent = all_of(twice[0], "rollout.metrics")
    assert {data["node"] for data in sent} == {node_id(prompt, "RolloutOptimizerStep")}
    assert [row["step"] for data in sent for row in data["rows"]] == list(range(STEPS))


def test_numbers_equal_those_of_our_runner(folders, our_folder):
    """Where a workflow is run changes nothing: every metric and every weight is equal to the bit."""
    ours, theirs = metrics(our_folder), metrics(folders[0])
    assert {"loss", "gradient_norm", "drift"} <= ours[-1].keys()
    assert any(row["rollout_share"] for row in ours)
    assert ours == theirs
    ours, theirs = weights(our_folder), weights(folders[0])
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_saved_weights_hold_the_workflow(folders):
    """The weights file, dropped on the canvas, brings back the workflow that the browser sent."""
    assert load(folders[0] / "model" / "diffusion_pytorch_model.safetensors") == load(QUICKSTART)
    assert read_json(folders[0] / "workflow.json") == load(QUICKSTART)


def run_and_stop(comfy, prompt, step):
    """Press the stop button once the trainer shows that step; (the step shown, what was heard until the end)."""
    pressed = []

    def press(kind, data):
        if kind == "progress" and data["node"] == trainer and data["value"] >= step and not pressed:
            comfy.interrupt()
            pressed.append(data["value"])

    trainer = node_id(prompt, "RolloutOptimizerStep")
    messages = comfy.run(prompt, press)
    return pressed[0], messages


def test_interrupt_stops_within_a_step(comfy):
    """The stop button works in the middle of a long run, keeps what was learnt, and the next prompt is served."""
    # Five batches make a step slow enough to be sure in which one the button was pressed.
    long = quickstart("OptimizerStep.steps=100", "OptimizerStep.accumulation=5", "OptimizerStep.run_name=long")
    shown, messages = run_and_stop(comfy, long, 3)
    (stopped,) = all_of(messages, "execution_interrupted")
    assert stopped["node_id"] == node_id(long, "RolloutOptimizerStep")
    folder = comfy.output / "rollout" / "long_00001"
    run = read_json(folder / "run.json")
    assert (run["status"], run["message"]) == ("interrupted", "stopped by the user")
    assert run["steps_done"] - shown <= 1
    assert len(metrics(folder)) == run["steps_done"]
    assert weights(folder)
    assert all_of(comfy.run(quickstart("OptimizerStep.run_name=next")), "execution_success")


def test_a_run_is_resumed(comfy):
    """It goes on in its folder, says from where, and ends with every bit of a run that never stopped."""
    constant = "Optimizer.lr_schedule=constant"
    comfy.run(quickstart(constant, "OptimizerStep.run_name=whole"))
    comfy.run(quickstart(constant, "OptimizerStep.run_name=part", "OptimizerStep.steps=5"))
    messages = comfy.run(quickstart(constant, "OptimizerStep.resume=part_00001"))
    assert all_of(messages, "execution_success")
    (told,) = all_of(messages, "rollout.resumed")
    assert told["text"].startswith(f"part_00001 goes on after step 5 of {STEPS}: weights, adamw, averaged weights")
    whole, part = (comfy.output / "rollout" / f"{name}_00001" for name in ("whole", "part"))
    assert read_json(part / "run.json")["status"] == "finished"
    assert metrics(part) == metrics(whole)
    assert weights(part).keys() == weights(whole).keys()
    assert all(torch.equal(value, weights(whole)[name]) for name, value in weights(part).items())


def test_a_state_that_does_not_fit_is_one_line_on_the_node(comfy):
    """The user hears what to change, on Optimizer Step."""
    prompt = quickstart("OptimizerStep.run_name=small", "OptimizerStep.steps=2")
    comfy.run(prompt)
    messages = comfy.run(quickstart("OptimizerStep.resume=small_00001", "NewModel.width=16"))
    (error,) = all_of(messages, "execution_error")
    assert error["node_id"] == node_id(prompt, "RolloutOptimizerStep")
    assert error["exception_message"].startswith("resume: 'small_00001' trained another model: ")


def test_interrupt_while_the_last_images_are_made(comfy):
    """All of the training was done: stopping there must not cost the model."""
    slow = quickstart("OptimizerStep.steps=2", "SampleImages.steps=300", "OptimizerStep.run_name=last")
    _, messages = run_and_stop(comfy, slow, 2)
    assert all_of(messages, "execution_interrupted")
    folder = comfy.output / "rollout" / "last_00001"
    assert read_json(folder / "run.json")["steps_done"] == 2
    assert weights(folder)


def test_a_diverged_run_names_node_and_step(comfy):
    """A loss that is no number any more ends the run with an error that says where and what to do."""
    hot = ["Optimizer.optimizer=sgd", "Optimizer.lr_schedule=constant", "Optimizer.learning_rate=10"]
    prompt = quickstart(*hot, "OptimizerStep.clip_norm=0", "OptimizerStep.run_name=hot")
    (error,) = all_of(comfy.run(prompt), "execution_error")
    assert (error["node_id"], error["node_type"]) == (node_id(prompt, "RolloutOptimizerStep"), "RolloutOptimizerStep")
    assert "step " in error["exception_message"]
    assert "lower the learning rate" in error["exception_message"]
    assert read_json(comfy.output / "rollout" / "hot_00001" / "run.json")["status"] == "failed"


def test_an_error_in_a_step_names_the_node_at_fault(comfy, tmp_path):
    """When images vanish in mid-training, the error on the trainer says which node failed, and in which step."""
    Image.new("L", (8, 8)).save(tmp_path / "image.png")
    prompt = quickstart("OptimizerStep.steps=1000", "OptimizerStep.run_name=vanished")
    dataset = node_id(prompt, "RolloutDigitsDataset")
    inputs = {"folder": str(tmp_path), "batch_size": 4, "size": 8, "repeats": 1}
    inputs |= {"crop": "center", "flip": False, "color": "L", "background": "white"}
    prompt[dataset] = {"class_type": "RolloutImageFolderDataset", "inputs": inputs}

    def vanish(kind, data):
        if kind == "preview":
            shutil.rmtree(tmp_path, ignore_errors=True)

    (error,) = all_of(comfy.run(prompt, vanish), "execution_error")
    assert error["node_id"] == node_id(prompt, "RolloutOptimizerStep")
    assert f"node {dataset} (Image Folder Dataset), step " in error["exception_message"]
    assert "image.png" in error["exception_message"]


def test_a_lora_is_trained_and_lands_among_the_loras(comfy, tiny_pipeline, photos):
    """A checkpoint from ComfyUI's folders, trained twice to the same bits, sampled, and there for Load LoRA."""
    models = comfy.output.parent / "models"
    (models / "diffusers").mkdir(exist_ok=True)
    (models / "diffusers" / "tiny").symlink_to(tiny_pipeline("sd"), target_is_directory=True)
    definitions = object_info(NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS)
    changes = ["LoadPretrained.storage=fp32", f"ImageFolderDataset.folder={photos / 'pagoda'}"]
    changes += ["ImageFolderDataset.size=64", "ImageFolderDataset.batch_size=2", "OptimizerStep.steps=3"]
    changes += ["Rollout.start_step=0", "Rollout.ramp_steps=0", "Rollout.probability=1", "SamplePrompts.steps=2"]
    changes += ["OptimizerStep.preview_every=1"]
    prompt = apply(to_prompt(load(QUICKSTART.with_name("lora_sd15.json")), definitions), definitions, changes)
    prompt[node_id(prompt, "RolloutLoadPretrained")]["inputs"]["checkpoint"] = "tiny"
    for _ in range(2):
        messages = comfy.run(prompt)
        assert all_of(messages, "execution_success"), all_of(messages, "execution_error")
    assert {data["node_id"] for data in all_of(messages, "preview")} >= {
        node_id(prompt, kind) for kind in ("RolloutNoisyBatch", "Rollout", "RolloutSamplePrompts")
    }
    first, second = sorted((models / "loras").glob("my_sd15_lora_*.safetensors"))
    weights, again = load_file(first), load_file(second)
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    assert {first.name, second.name} <= set(json.loads(comfy.get("/models/loras")))
