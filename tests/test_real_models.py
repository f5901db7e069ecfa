"""The workflows for pretrained models, as a user runs them: tiny pipelines of every family, real photographs."""

import json

import pytest
import torch
from comfyui_rollout.__main__ import main
from safetensors import safe_open
from safetensors.torch import load_file
from shipped import BESIDE, FAMILIES, made_small
from tiny_pipelines import unread

FORMATS = ("diffusers", "comfyui", "kohya")


def prepared(name, pipeline, photos):
    """The shipped workflow as a prompt, made small, with Save LoRA in every format of its family."""
    prompt = made_small(name, pipeline, photos)
    (save,) = (node for node in prompt.values() if node["class_type"] == "RolloutSaveLora")
    for form in FORMATS if (FAMILIES | BESIDE)[name] != "flux3" else ("diffusers",):
        prompt[f"save_{form}"] = {**save, "inputs": {**save["inputs"], "format": form, "name": form}}
    return prompt


def run(prompt, folder):
    """Exit code of ``comfyui-rollout run``."""
    (folder / "prompt.json").write_text(json.dumps(prompt))
    return main(["run", str(folder / "prompt.json"), "--output", str(folder / "out"), "--device", "cpu"])


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_pipeline, tiny_pipelines, photos):
    """``trained(workflow) -> folder``: the output folder after a run of three steps."""
    made = {}

    def train(name):
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            family = tiny_pipeline((FAMILIES | BESIDE)[name])
            with pytest.MonkeyPatch.context() as patch:
                tiny_pipelines.small_pictures(patch)
                assert run(prepared(name, family, photos), folder) == 0
            made[name] = folder / "out"
        return made[name]

    return train


def rows(out):
    (metrics,) = out.glob("rollout/*/metrics.jsonl")
    return [json.loads(line) for line in metrics.read_text().splitlines()]


@pytest.mark.parametrize("workflow", [*FAMILIES, *BESIDE])
def test_a_shipped_workflow_trains_and_leaves_what_it_says(trained, workflow):
    """Rollouts happen, ReflexFlow where it is shown, and samples, previews, weights and curves are there."""
    out = trained(workflow)
    steps = rows(out)
    assert [row["step"] for row in steps] == [0, 1, 2]
    assert all(row["loss"] > 0 for row in steps)
    assert any(row["rollout_share"] > 0 and row["drift"] > 0 for row in steps)
    assert all(("loss_anti_drift" in row) == (workflow == "lora_sd3") for row in steps)
    (folder,) = out.glob("rollout/*")
    assert list(folder.glob("samples/*.png"))
    assert list(folder.glob("rollouts/*.png"))
    assert (folder / "model" / "pytorch_lora_weights.safetensors").is_file()
    assert json.loads((folder / "run.json").read_text())["status"] == "finished"


def test_a_lora_of_ones_own_is_made_fast(trained, tiny_pipeline, tiny_pipelines, photos, tmp_path, monkeypatch):
    """fast_lora.json begins with its file, as its note says: with next to no learning rate it is written as it was."""
    own = next(trained("lora_sd3").glob("loras/my_*.safetensors"))
    tiny_pipelines.small_pictures(monkeypatch)
    prompt = made_small("fast_lora", tiny_pipeline("sd3"), photos)
    given = {"RolloutAddLora": {"continue_from": str(own)}, "RolloutOptimizer": {"learning_rate": 1e-9}}
    for node in prompt.values():
        node["inputs"] |= given.get(node["class_type"], {})
    assert run(prompt, tmp_path) == 0
    before, after = (load_file(path) for path in (own, next(tmp_path.glob("out/loras/my_fast_lora*.safetensors"))))
    assert before.keys() == after.keys()
    assert all(torch.allclose(after[name], value, rtol=0, atol=1e-6) for name, value in before.items())
    assert any(value.abs().max() > 1e-4 for name, value in before.items() if "lora_B" in name)


# Not those that diffusers reads at the size of the real model only, or not at all: ComfyUI's own loader is asked about
# them, in tests/models/adapters.
READ_BY_DIFFUSERS = [(workflow, "diffusers") for workflow in FAMILIES] + [
    ("lora_sd15", "kohya"),
    ("lora_sdxl", "kohya"),
    ("lora_flux", "comfyui"),
]


@pytest.mark.parametrize(("workflow", "form"), READ_BY_DIFFUSERS)
def test_the_saved_file_changes_the_output_as_the_trained_weights_say(trained, tiny_pipeline, workflow, form):
    """diffusers' load_lora_weights gives the network that has alpha / rank * B A added to its layers."""
    from comfyui_rollout.models.families import PRETRAINED

    family, out = FAMILIES[workflow], trained(workflow)
    kind = PRETRAINED[family]
    pipeline = kind.pipeline().from_pretrained(tiny_pipeline(family), **unread(kind))
    network = getattr(pipeline, kind.network_part)
    wanted = {name: value.clone() for name, value in network.state_dict().items()}
    (folder,) = out.glob("rollout/*")
    weights = load_file(folder / "model" / "pytorch_lora_weights.safetensors")
    changed = 0
    for name, down in weights.items():
        if name.endswith("lora_A.weight"):
            layer = name.removeprefix(f"{kind.network_part}.").removesuffix(".lora_A.weight")
            delta = weights[name.replace("lora_A", "lora_B")] @ down  # alpha is the rank
            wanted[f"{layer}.weight"] += delta
            changed += bool(delta.abs().max() > 1e-4)
    assert changed > 4
    (file,) = out.glob(f"loras/{form}_*.safetensors")
    if hasattr(pipeline, "load_lora_weights"):
        pipeline.load_lora_weights(file.parent, weight_name=file.name)
        pipeline.fuse_lora()
        pipeline.unload_lora_weights()
    else:
        network.load_lora_adapter(load_file(file), prefix=kind.network_part)
        network.fuse_lora()
        network.unload_lora()
    found = network.state_dict()
    for name, value in wanted.items():
        torch.testing.assert_close(
            found[name], value, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize(("workflow", "quantize"), [("lora_flux", "int8"), ("lora_sd15", "none")])
def test_number_formats_of_a_real_run(tiny_pipeline, photos, tmp_path, workflow, quantize):
    """Frozen weights in 16 or 8 bit, gradient checkpointing and autocast, as shipped: finite losses, and it learns."""
    if quantize != "none":
        pytest.importorskip("torchao")
    prompt = prepared(workflow, tiny_pipeline(FAMILIES[workflow]), photos)
    formats = {
        "RolloutLoadPretrained": {"storage": "bf16", "quantize": quantize, "gradient_checkpointing": True},
        "RolloutOptimizerStep": {"precision": "bf16"},
    }
    for node in prompt.values():
        node["inputs"] |= formats.get(node["class_type"], {})
    assert run(prompt, tmp_path) == 0
    steps = rows(tmp_path / "out")
    assert len(steps) == 3
    assert all(0 < row["loss"] < float("inf") for row in steps)
    (file,) = (tmp_path / "out").glob("rollout/*/model/pytorch_lora_weights.safetensors")
    ups = {name: value for name, value in load_file(file).items() if "lora_B" in name}
    assert all(value.isfinite().all() for value in ups.values())
    assert sum(bool(value.abs().max() > 1e-4) for value in ups.values()) > 4  # they begin at zero


@pytest.mark.parametrize("form", FORMATS)
def test_a_saved_lora_brings_its_workflow_back(trained, form):
    """Every format carries the graph, so that the file can be dropped on the canvas."""
    (file,) = trained("lora_sd15").glob(f"loras/{form}_*.safetensors")
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    assert json.loads(metadata["prompt"])["9"]["class_type"] == "Rollout"
    assert metadata["modelspec.architecture"] == "stable-diffusion-v1/lora"


def test_dreambooth_trains_on_both_folders(trained):
    """Every other batch comes from the images of the class, which are encoded too."""
    out = trained("dreambooth_rollout")
    assert len(list(out.glob("encoded/latents/**/*.safetensors"))) == 6


def test_the_next_run_encodes_nothing_again(trained, tiny_pipeline, photos, tmp_path, capsys):
    """Encode once: the cache of the output folder serves the next run, whatever its other settings."""
    cache = trained("lora_sd15") / "encoded"
    before = {path: path.stat().st_mtime_ns for path in cache.rglob("*.safetensors")}
    prompt = prepared("lora_sd15", tiny_pipeline("sd"), photos)
    for node in prompt.values():
        if node["class_type"] == "RolloutEncodeDataset":
            node["inputs"]["cache_folder"] = str(cache)
        if node["class_type"] == "RolloutAddLora":
            node["inputs"]["rank"] = 4
    assert run(prompt, tmp_path) == 0
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*.safetensors")} == before
    assert "0 to encode" in capsys.readouterr().out


def test_the_same_seed_trains_the_same_lora(trained, tiny_pipeline, photos, tmp_path):
    """A run can be repeated from its workflow, bit for bit."""
    assert run(prepared("lora_sd3", tiny_pipeline("sd3"), photos), tmp_path) == 0
    (first,), (second,) = (out.glob("rollout/*/model/*.safetensors") for out in (trained("lora_sd3"), tmp_path / "out"))
    first, second = load_file(first), load_file(second)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
