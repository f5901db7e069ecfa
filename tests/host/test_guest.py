"""We are a good guest of ComfyUI: errors, interrupts, memory, routes, and nothing of it is left changed."""

import json
import os
import subprocess

import pytest
from comfy_process import PYTHON, ROOT, all_of, read_json
from comfyui_rollout import NODE_CLASS_MAPPINGS
from hosted_graphs import training, without


def test_the_pack_is_there(comfy):
    """Whatever its folder is called; nothing failed, and it takes no time."""
    theirs = json.loads(comfy.get("/object_info"))
    assert not NODE_CLASS_MAPPINGS.keys() - theirs.keys()
    ours = [line for line in comfy.log.read_text().splitlines() if "comfyui-rollout copy v1.0" in line]
    assert ours
    assert [line for line in ours if "FAILED" in line or "Cannot import" in line] == []


def test_all_of_it_is_in_one_place_and_in_hindi_too(comfy):
    """ComfyUI's library has our nodes below one root, and our words for whoever reads Hindi."""
    theirs = json.loads(comfy.get("/object_info"))
    root, rooms = "training/rollout", {"data", "model", "rollout", "train", "results"}
    assert {theirs[name]["category"] for name in NODE_CLASS_MAPPINGS} == {f"{root}/{room}" for room in rooms}
    words = json.loads(comfy.get("/i18n"))["hi"]["nodeDefs"]
    assert words.keys() >= NODE_CLASS_MAPPINGS.keys()


def test_it_is_imported_in_no_time(tmp_path):
    """Where Python has seen the files before, and all that ComfyUI loads is there: seconds of the processor."""
    script = ROOT / "tests" / "support" / "import_in_comfyui.py"
    kept = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(tmp_path)}
    environment = {**os.environ, **kept, "PYTHONPATH": os.environ["COMFYUI_PATH"]}
    seconds = []
    for _ in range(2):
        done = subprocess.run(
            [PYTHON, str(script), str(ROOT)], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        seconds.append(float(done.stdout.splitlines()[-1]))
    assert seconds[1] < 0.5


def error_of(comfy, graph):
    (error,) = all_of(comfy.run(graph), "execution_error")
    return error["node_id"], error["exception_message"].strip()


def test_a_model_that_cannot_be_copied_is_one_line(comfy):
    """A loader of its own gives no way to load it again."""
    graph = training("flux", step={"run_name": "nocopy"})
    graph["loader"]["class_type"] = "TinyWithoutLoader"
    node, message = error_of(comfy, graph)
    assert node == "step"
    assert "its loader (ModelPatcher) gives no copy that could be trained; load it with Load Checkpoint" in message
    assert "\n" not in message


def test_a_pattern_that_fits_nothing_is_one_line(comfy):
    """Said before anything is copied, with names to choose from."""
    graph = training("flux", model={"targets": "custom", "pattern": "nowhere"})
    node, message = error_of(comfy, graph)
    assert node == "model"
    assert message.startswith("pattern: no layer of this model fits ('nowhere',); its layers are img_in")


def test_images_without_a_vae_are_one_line(comfy):
    """What is missing, and where it goes."""
    graph = training("flux")
    del graph["model"]["inputs"]["vae"]
    assert error_of(comfy, graph) == (
        "data",
        "pipeline: wire a VAE into Train ComfyUI Model, to encode images",
    )


def test_a_vae_of_another_family_is_one_line(comfy):
    """Before anything is trained."""
    graph = training("flux", model={"vae": ["other", 2]})
    graph["other"] = {"class_type": "TinyComfy", "inputs": {"family": "sd"}}
    assert error_of(comfy, graph) == (
        "data",
        "vae: it gives latents of 4 channels, and Flux takes 16; wire the model's own VAE into Train ComfyUI Model",
    )


@pytest.mark.parametrize(("place", "name"), list(enumerate(["images", "masks", "captions"])))
def test_an_empty_list_is_one_line(comfy, place, name):
    """What was wired and gives nothing is no choice to go without."""
    graph = training("flux", data={name: ["nothing", place]})
    graph["nothing"] = {"class_type": "Nothing", "inputs": {}}
    assert error_of(comfy, graph) == (
        "data",
        f"{name}: the list is empty; the node that it comes from has found nothing",
    )


IN_PART = {
    "area": ("ConditioningSetArea", {"width": 64, "height": 64, "x": 0, "y": 0, "strength": 1.0}),
    "mask": ("ConditioningSetMask", {"mask": ["white", 0], "strength": 1.0, "set_cond_area": "default"}),
    "start_percent": ("ConditioningSetTimestepRange", {"start": 0.0, "end": 0.5}),
}


@pytest.mark.parametrize("what", IN_PART)
def test_text_for_a_part_is_one_line(comfy, what):
    """Of the image, or of its sampling: it is not trained as if it were for all."""
    graph = training("flux", "latents")
    kind, inputs = IN_PART[what]
    graph["encoded"] = {"class_type": "VAEEncode", "inputs": {"pixels": ["pictures", 0], "vae": ["loader", 2]}}
    graph["white"] = {"class_type": "SolidMask", "inputs": {"value": 1.0, "width": 64, "height": 64}}
    graph["texts"] = {"class_type": kind, "inputs": {"conditioning": ["positive", 0], **inputs}}
    node, message = error_of(comfy, graph)
    assert node == "data"
    assert message == f"conditioning: it holds {what}, which training cannot follow; wire a plain text encoding"


def test_data_of_another_pipeline_is_one_line(comfy):
    """The remedy is the wire, not another node."""
    graph = training("flux", data={"pipeline": ["second", 2]})
    graph["other"] = {"class_type": "TinyComfy", "inputs": {"family": "sd"}}
    graph["second"] = json.loads(json.dumps(graph["model"]))
    graph["second"]["inputs"] |= {"model": ["other", 0], "clip": ["other", 1], "vae": ["other", 2]}
    node, message = error_of(comfy, graph)
    assert node == "step"
    assert "(Images to Dataset) is encoded for another model (comfyui." in message
    assert message.endswith("wire the pipeline of the model that is trained into it")
    assert "\n" not in message


def test_a_file_of_another_model_is_one_line(comfy):
    """continue_from names what does not fit."""
    comfy.run(training("wan", step={"run_name": "other"}))
    (path,) = (comfy.output / "rollout" / "other_00001" / "model").glob("*.safetensors")
    node, message = error_of(comfy, training("flux", model={"continue_from": str(path)}))
    assert node == "step"
    assert "continue_from: it was made for another model" in message


def test_interrupt_stops_within_a_step(comfy):
    """The stop button keeps what was learnt, and the next prompt is served."""
    pressed = []

    def press(kind, data):
        if kind == "progress" and data["node"] == "step" and data["value"] >= 3 and not pressed:
            comfy.interrupt()
            pressed.append(data["value"])

    graph = training("zimage", step={"steps": 200, "run_name": "long", "sample_every": 0})
    messages = comfy.run(graph, press)
    (stopped,) = all_of(messages, "execution_interrupted")
    assert stopped["node_id"] == "step"
    folder = comfy.output / "rollout" / "long_00001"
    run = read_json(folder / "run.json")
    assert (run["status"], run["message"]) == ("interrupted", "stopped by the user")
    assert run["steps_done"] - pressed[0] <= 1
    assert list((folder / "model").glob("*.safetensors"))
    assert measure(comfy, 0)["in_training"] == [False]


def measure(comfy, number):
    """Memory, as a node sees it."""
    graph = {"memory": {"class_type": "Memory", "inputs": {"number": number}}}
    (done,) = all_of(comfy.run(graph), "executed")
    return done["output"]


def test_memory_is_given_back(comfy):
    """Five more runs leave no tensor behind, and no memory to speak of."""
    for number in range(2):  # what is loaded once and stays
        comfy.run(training("flux", step={"run_name": f"warm{number}"}))
    before = measure(comfy, 1)
    for number in range(5):
        comfy.run(training("flux", step={"run_name": f"again{number}"}))
    after = measure(comfy, 2)
    assert after["in_training"] == [False]
    assert after["tensors"][0] <= 1.05 * before["tensors"][0]
    assert after["rss"][0] <= 1.05 * before["rss"][0]


def test_the_model_on_the_wire_is_untouched(comfy):
    """KSampler makes the same image of the plain MODEL before and after a training on it."""
    graph = training("flux", step={"run_name": "untouched"})
    plain = {name: graph[name] for name in ("loader", "positive", "empty", "sampler", "decode", "show")}
    plain = json.loads(json.dumps(plain))
    plain["sampler"]["inputs"]["model"] = ["loader", 0]
    before = comfy.run(plain)
    comfy.run(graph)
    plain["sampler"]["inputs"]["seed"] = 2
    comfy.run(plain)  # so that nothing is cached
    plain["sampler"]["inputs"]["seed"] = 1
    after = comfy.run(plain)
    pictures = [
        next(data["output"]["images"][0] for data in all_of(messages, "executed") if data["node"] == "show")
        for messages in (before, after)
    ]
    first, second = (comfy.get(f"/view?filename={picture['filename']}&type=temp&subfolder=") for picture in pictures)
    assert first == second


def test_the_list_of_runs_is_served(comfy):
    """What the Runs tab asks for, with the standalone server's answers."""
    graph = without(training("sd", step={"run_name": "listed"}), "save_theirs")
    comfy.run(graph)
    runs = json.loads(comfy.get("/api/rollout/runs"))["runs"]
    run = next(run for run in runs if run["name"] == "listed_00001")
    assert (run["status"], run["steps_done"], run["has_workflow"]) == ("finished", 3, True)
    rows = json.loads(comfy.get("/api/rollout/runs/listed_00001/metrics"))
    assert [row["step"] for row in rows["rows"]] == [0, 1, 2]
    files = json.loads(comfy.get("/rollout/runs/listed_00001/files"))["files"]
    samples = next(file for file in files if file["path"].startswith("samples/"))
    view = "&".join(f"{name}={value}" for name, value in samples["view"].items())
    assert comfy.get(f"/api/view?{view}").startswith(b"\x89PNG")
    assert json.loads(comfy.get("/api/rollout/runs/listed_00001"))["name"] == "listed_00001"
    assert comfy.request("DELETE", "/api/rollout/runs/listed_00001") == (204, "")
    assert not (comfy.output / "rollout" / "listed_00001").exists()
    assert comfy.request("GET", "/api/rollout/runs/listed_00001")[0] == 404


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize("name", ["..", "%2e%2e", "..%2f..", "%252e%252e%252fuser", "a%2fb", "nul", "x%00"])
def test_no_name_leads_out(comfy, method, name):
    """The standalone server's checks hold here too."""
    status, _ = comfy.request(method, f"/api/rollout/runs/{name}")
    assert status in (400, 403, 404, 405)
    assert (comfy.base / "user").is_dir()
    assert (comfy.output / "rollout").is_dir()


def test_other_sites_are_refused(comfy):
    """ComfyUI's own rule covers our routes."""
    assert comfy.request("DELETE", "/api/rollout/runs/x", **{"Sec-Fetch-Site": "cross-site"})[0] == 403
    assert comfy.request("GET", "/api/rollout/runs", Origin="http://elsewhere.example")[0] == 403


@pytest.mark.parametrize("path", ["/api/rollout/prompt", "/api/rollout/logs", "/rollout/settings"])
def test_nothing_else_is_registered(comfy, path):
    """Only what the web code needs."""
    assert comfy.request("GET", path)[0] == 404
