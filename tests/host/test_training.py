"""ComfyUI's own MODEL, trained inside ComfyUI: four families, every way of data, and what comes out on its sockets."""

import json
import os
import subprocess

import pytest
import torch
from comfy_process import PYTHON, ROOT, all_of, metrics, read_json
from hosted_graphs import training, without
from safetensors import safe_open
from safetensors.torch import load_file

FAMILIES = ("flux", "sd", "zimage", "wan")


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Gradients and batches, measured by ComfyUI's python."""
    path = tmp_path_factory.mktemp("path")
    (path / "comfyui_rollout").symlink_to(ROOT, target_is_directory=True)
    places = [os.environ["COMFYUI_PATH"], str(path), str(ROOT / "tests" / "support")]
    command = [PYTHON, str(ROOT / "tests" / "support" / "train_in_comfyui.py"), *FAMILIES]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_exact(measured, family, checkpointing):
    """Along the gradient and other directions, as finite differences say, with large weights in the adapter."""
    assert measured[family][f"lora {checkpointing}"] < 1e-3


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("kind", ["lokr", "loha"])
def test_gradients_of_other_adapters_are_exact(measured, kind, checkpointing):
    """On convolutions too."""
    assert measured["sd"][f"{kind} {checkpointing}"] < 1e-3


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_is_its_items(measured, family):
    """Three items with texts of unequal length come out as one by one."""
    assert measured[family]["batch"] < 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_what_comfyui_samples(measured, family):
    """A new adapter changes nothing: timesteps, outputs and text are ComfyUI's, a LoRA on the MODEL included."""
    assert measured[family]["sampled"] < 1e-4


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_in_half_precision_are_trained_on(measured, family):
    """The adapter stays in float32, and its gradient points where that of the whole network in float32 does."""
    assert measured[family]["half"] > 0.95


FEW_BITS = (
    "fp8", "float8_e4m3fn", "float8_e5m2", "mxfp8", "nvfp4", "int8_tensorwise", "convrot_w4a4", "asym_w4a8_int8",
)  # fmt: skip


@pytest.mark.parametrize("format", FEW_BITS)
def test_gradients_over_weights_in_few_bits_are_exact(measured, format):
    """Every format that ComfyUI knows: as over plain weights of the same values, whether it has a backward pass or not.

    Its own of 8-bit integers rounds gradients too, and those of 4 bits fail.
    """
    assert set(measured["few bits"]) == set(FEW_BITS)
    assert measured["few bits"][format] < 1e-2


@pytest.mark.parametrize("family", ["flux", "sd"])
def test_weights_may_stay_off_the_device(measured, family):
    """With offloading: gradients to the bit as with all of it on the device, a LoRA on the MODEL included."""
    assert measured["offloaded"][family]["same"]
    assert measured["offloaded"][family]["off"] > 10


def test_weights_that_were_taken_off_the_device_come_back(measured):
    """Between two steps ComfyUI may make room, for a VAE say; the next step computes on the same bits."""
    assert measured["memory"]["unloaded"]


def test_a_model_that_stays_off_the_device_is_one_line(measured):
    """With --novram, and where it is too large: what it is and what to do."""
    assert measured["memory"]["no_vram"].startswith("model: ComfyUI keeps a part of it off the device (lowvram)")
    assert measured["memory"]["too_large"].startswith("model: its weights")
    assert "\n" not in measured["memory"]["no_vram"] + measured["memory"]["too_large"]


def test_a_text_without_what_the_network_is_told_is_one_line(measured):
    """What is missing, and which encoder has it."""
    expected = "conditioning: it lacks pooled, which this network is told; encode the text with its own CLIP"
    assert measured["memory"]["lacking"] == expected


@pytest.fixture(scope="module")
def trained(comfy):
    """The whole graph run for a family, once: its messages."""
    known = {}

    def run(family):
        if family not in known:
            name = f"all_of_{family}"  # others leave runs and files in this ComfyUI too
            graph = training(
                family, step={"run_name": name}, save={"name": name}, save_theirs={"prefix": f"loras/{name}"}
            )
            known[family] = comfy.run(graph)
            assert all_of(known[family], "execution_success"), all_of(known[family], "execution_error")
        return known[family]

    return run


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_trained(comfy, trained, family):
    """Loader, data set, Rollout, ReflexFlow and trainer leave a run; KSampler takes the patched MODEL."""
    trained(family)
    folder = comfy.output / "rollout" / f"all_of_{family}_00001"
    assert read_json(folder / "run.json")["status"] == "finished"
    rows = metrics(folder)
    assert [row["step"] for row in rows] == [0, 1, 2]
    assert any(row["rollout_share"] for row in rows)
    assert len(list(folder.glob("samples/*.png"))) == 2
    shown = {data["node"]: data["output"] for data in all_of(trained(family), "executed")}
    assert shown["show"]["images"]


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_saved_is_what_was_trained(comfy, trained, family):
    """Our file, ComfyUI's own and the run's hold the same tensors, changed from what they began with."""
    trained(family)
    (ours,) = (comfy.base / "models" / "loras").glob(f"all_of_{family}_*.safetensors")
    (theirs,) = (comfy.output / "loras").glob(f"all_of_{family}_*.safetensors")
    (run,) = (comfy.output / "rollout" / f"all_of_{family}_00001" / "model").glob("*.safetensors")
    kept = load_file(run)
    assert any(name.endswith("lora_up.weight") and value.any() for name, value in kept.items())
    for path in (ours, theirs):
        saved = load_file(path)
        assert saved.keys() == kept.keys()
        assert all(torch.equal(saved[name], kept[name]) for name in kept)
    with safe_open(ours, "pt") as file:
        facts = file.metadata()
    assert facts["ss_network_dim"] == "4"
    assert "prompt" in facts


def test_comfyui_loads_what_was_saved(comfy, trained):
    """Its own Load LoRA makes the very image that the trained MODEL made, and no key is unknown to it."""
    trained("flux")
    (ours,) = (comfy.base / "models" / "loras").glob("all_of_flux_*.safetensors")
    graph = training("flux", step={"seed": 99})
    loaded = {
        "loaded": {
            "class_type": "LoraLoaderModelOnly",
            "inputs": {"model": ["loader", 0], "lora_name": ours.name, "strength_model": 1.0},
        }
    }
    graph = {name: graph[name] for name in ("loader", "positive", "empty", "sampler", "decode", "show")} | loaded
    graph["sampler"]["inputs"]["model"] = ["loaded", 0]
    before = comfy.log.stat().st_size
    shown = {data["node"]: data["output"] for data in all_of(comfy.run(graph), "executed")}
    mine = {data["node"]: data["output"] for data in all_of(trained("flux"), "executed")}
    assert picture(comfy, shown["show"]["images"][0]) == picture(comfy, mine["show"]["images"][0])
    assert "not loaded" not in comfy.log.read_text()[before:].lower()


def picture(comfy, image):
    """The pixels of an image that a node shows."""
    import io
    from urllib.parse import urlencode

    from PIL import Image

    return Image.open(io.BytesIO(comfy.get(f"/view?{urlencode(image)}"))).convert("RGB").tobytes()


def run_only(comfy, name, **changes):
    """A run without what comes after it; its folder."""
    family, nodes = changes.pop("family", "flux"), changes.pop("nodes", {})
    graph = nodes | training(
        family, **{**changes, "step": {"run_name": name, "sample_every": 0, **changes.get("step", {})}}
    )
    kept = without(graph, "trained", "save", "save_theirs", "positive", "empty", "sampler", "decode", "show", "samples")
    del kept["step"]["inputs"]["samples"]
    messages = comfy.run(kept)
    assert all_of(messages, "execution_success"), all_of(messages, "execution_error")
    return sorted((comfy.output / "rollout").glob(f"{name}_*"))[-1]


def adapter(folder):
    (path,) = (folder / "model").glob("*.safetensors")
    return load_file(path)


def test_it_is_the_same_to_the_bit(comfy):
    """The same seed gives the same adapter, with and without gradient checkpointing the same to rounding."""
    first, second = (adapter(run_only(comfy, "bits")) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    plain = adapter(run_only(comfy, "bits_plain", model={"gradient_checkpointing": False}))
    for name in first:
        torch.testing.assert_close(plain[name], first[name], rtol=1e-3, atol=1e-4)


def test_it_is_resumed(comfy):
    """After a stop it goes on, and ends with every bit of a run that never stopped."""
    whole = run_only(comfy, "whole", step={"steps": 6})
    run_only(comfy, "part", step={"steps": 2})
    part = run_only(comfy, "part", step={"steps": 6, "resume": "part_00001"})
    assert part.name == "part_00001"
    assert metrics(part) == metrics(whole)
    assert all(torch.equal(value, adapter(whole)[name]) for name, value in adapter(part).items())


@pytest.mark.parametrize("kind", ["lora", "lokr", "loha"])
def test_an_adapter_is_trained_further(comfy, kind):
    """A file goes on where it was: with nothing more to learn, it comes out as it went in."""
    first = run_only(comfy, f"from_{kind}", model={"kind": kind})
    (path,) = (first / "model").glob("*.safetensors")
    again = run_only(comfy, f"on_{kind}", model={"continue_from": str(path)}, optimizer={"learning_rate": 0.0})
    assert adapter(again).keys() == adapter(first).keys()
    assert all(torch.equal(value, adapter(first)[name]) for name, value in adapter(again).items())


def test_an_adapter_on_a_wire_is_trained_further(comfy):
    """A LORA_MODEL goes on where it was, and comes out in the same file format."""
    first = run_only(comfy, "for_wire")
    (path,) = (first / "model").glob("*.safetensors")
    read = {"read": {"class_type": "ReadLora", "inputs": {"path": str(path)}}}
    again = run_only(comfy, "on_wire", model={"lora": ["read", 0]}, optimizer={"learning_rate": 0.0}, nodes=read)
    assert adapter(again).keys() == adapter(first).keys()
    assert all(torch.equal(value, adapter(first)[name]) for name, value in adapter(again).items())


def test_offloading_goes_with_gradient_checkpointing_only(comfy):
    """The run is the same to the bit; without it, one line on the node before anything is copied."""
    whole = adapter(run_only(comfy, "whole_on_device"))
    parts = adapter(run_only(comfy, "offloading", model={"offloading": True}))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    graph = training("flux", model={"offloading": True, "gradient_checkpointing": False})
    (error,) = all_of(comfy.run(graph), "execution_error")
    assert error["node_id"] == "model"
    assert error["exception_message"].startswith("gradient_checkpointing: offloading needs it")


@pytest.mark.parametrize("dtype", ["default", "fp8_e4m3fn"])
def test_what_load_diffusion_model_gives_is_trained(comfy, dtype):
    """A file by ComfyUI's own loader, whose copy is read from that file again, in 8 bits too."""
    assert all_of(
        comfy.run({"write": {"class_type": "WriteNetwork", "inputs": {"name": "wan.safetensors"}}}), "execution_success"
    )
    name = f"file_{dtype}"
    graph = training("wan", model={"model": ["file", 0]}, step={"run_name": name}, save={"name": name})
    graph["file"] = {"class_type": "UNETLoader", "inputs": {"unet_name": "wan.safetensors", "weight_dtype": dtype}}
    messages = comfy.run(graph)
    assert all_of(messages, "execution_success"), all_of(messages, "execution_error")
    (path,) = (comfy.base / "models" / "loras").glob(f"{name}_*.safetensors")
    assert any(key.endswith("lora_up.weight") and value.any() for key, value in load_file(path).items())


def test_sizes_are_mixed(comfy):
    """A list of images of two sizes trains, each batch of one of them."""
    folder = run_only(comfy, "mixed", pictures={"oblong": True}, step={"steps": 4})
    assert read_json(folder / "run.json")["steps_done"] == 4


def test_a_folder_is_encoded(comfy, photos):
    """Our folders, cache, buckets and dropout go with ComfyUI's CLIP and VAE; a second run encodes nothing."""
    folder = {"class_type": "RolloutImageFolderDataset", "inputs": {
        "folder": str(photos / "pagoda"), "batch_size": 2, "size": 64, "repeats": 1, "crop": "center", "flip": False,
        "color": "RGB", "background": "white", "buckets": True,
    }}  # fmt: skip
    graph = training("zimage", "folder", step={"run_name": "folder"})
    graph = {**without(graph, "pictures"), "folder": folder}
    messages = comfy.run(graph)
    assert all_of(messages, "execution_success"), all_of(messages, "execution_error")
    files = sorted((comfy.output / "encoded").rglob("*.safetensors"))
    assert files
    comfy.run({**graph, "step": {**graph["step"], "inputs": {**graph["step"]["inputs"], "run_name": "folder_again"}}})
    assert sorted((comfy.output / "encoded").rglob("*.safetensors")) == files


def test_latents_and_conditioning_are_data(comfy):
    """ComfyUI's own VAE Encode and text encoding, trained on as they are."""
    graph = training("wan", "latents", step={"run_name": "latents"})
    graph["encoded"] = {"class_type": "VAEEncode", "inputs": {"pixels": ["pictures", 0], "vae": ["loader", 2]}}
    graph["texts"] = {"class_type": "TinyText", "inputs": {"clip": ["loader", 1], "text": ["pictures", 2]}}
    messages = comfy.run(graph)
    assert all_of(messages, "execution_success"), all_of(messages, "execution_error")


def test_samples_come_out_as_images(comfy):
    """Sample Prompts behind the trained model gives an IMAGE; before it the node says why it cannot."""
    graph = training("flux", step={"run_name": "images"})
    graph["after"] = {"class_type": "RolloutSamplePrompts", "inputs": {
        **graph["samples"]["inputs"], "model": ["step", 0],
    }}  # fmt: skip
    graph["show"]["inputs"]["images"] = ["after", 1]
    messages = comfy.run(graph)
    assert all_of(messages, "execution_success"), all_of(messages, "execution_error")
    shown = {data["node"]: data["output"] for data in all_of(messages, "executed")}
    assert len(shown["show"]["images"]) == 1
    graph["show"]["inputs"]["images"] = ["samples", 1]
    (error,) = all_of(comfy.run(graph), "execution_error")
    assert error["exception_message"].startswith("images: Optimizer Step draws these samples")


def test_samples_are_those_of_ksampler(comfy):
    """The trained network drawn with by Sample Prompts makes what KSampler makes of the MODEL with the LoRA on it.

    To a shade: an adapter beside a layer and one added to its weight round differently.
    """
    graph = training("zimage", step={"run_name": "as_ksampler"}, optimizer={"learning_rate": 0.1})
    drawn = {"seed": 5, "steps": 4}
    graph["after"] = {"class_type": "RolloutSamplePrompts", "inputs": {
        **graph["samples"]["inputs"], **drawn, "model": ["step", 0], "guidance": 3.0,
    }}  # fmt: skip
    graph["ours"] = {"class_type": "PreviewImage", "inputs": {"images": ["after", 1]}}
    graph["empty_text"] = {"class_type": "TinyText", "inputs": {"clip": ["loader", 1], "text": ""}}
    graph["sampler"]["inputs"] |= {**drawn, "cfg": 3.0, "negative": ["empty_text", 0]}
    graph["plain"] = {**graph["sampler"], "inputs": {**graph["sampler"]["inputs"], "model": ["loader", 0]}}
    graph["decode_plain"] = {"class_type": "VAEDecode", "inputs": {"samples": ["plain", 0], "vae": ["loader", 2]}}
    graph["untrained"] = {"class_type": "PreviewImage", "inputs": {"images": ["decode_plain", 0]}}
    messages = comfy.run(graph)
    assert all_of(messages, "execution_success"), all_of(messages, "execution_error")
    shown = {data["node"]: data["output"] for data in all_of(messages, "executed")}
    ours, theirs, plain = (
        torch.frombuffer(bytearray(picture(comfy, shown[name]["images"][0])), dtype=torch.uint8).float()
        for name in ("ours", "show", "untrained")
    )
    assert (ours - theirs).abs().mean() < 0.5
    assert (ours - plain).abs().mean() > 5
