"""Whole configurations, brought over as whole workflows that train."""

import json

import pytest
from brought_over import CONFIGS, OURS, at_least, bring, inputs, kinds, run, small, source
from canvas import check_canvas
from comfyui_rollout import NODE_CLASS_MAPPINGS
from comfyui_rollout.__main__ import main
from comfyui_rollout.graph import to_prompt, validate
from comfyui_rollout.graph.workflow.layout import Group, to_workflow
from comfyui_rollout.importing.simpletuner import ROOM, Files, import_config


@pytest.mark.parametrize("name", CONFIGS)
def test_the_workflow_is_whole(name):
    """It validates with today's nodes, survives the canvas, is readable there, and everything in it is in a frame."""
    imported = bring(name)
    validation = validate(imported.prompt, NODE_CLASS_MAPPINGS)
    assert validation.error is None
    assert not validation.node_errors
    assert imported.report.left == []
    groups = [Group(title, ids) for title, ids in imported.frames.items()]
    workflow = to_workflow(imported.prompt, OURS, groups=groups, note=imported.note, room=ROOM)
    assert to_prompt(workflow, OURS) == imported.prompt
    check_canvas(workflow)
    assert [group["title"] for group in workflow["groups"]] == list(imported.frames)
    assert sorted(node for frame in imported.frames.values() for node in frame) == sorted(imported.prompt)
    assert "Change first" in workflow["nodes"][-1]["widgets_values"][0]


def test_sdxl_lora():
    """Dashes, numbers as texts, an epsilon model with a UniPC rollout: one by one."""
    imported = bring("sdxl_lora_unipc")
    at_least(
        inputs(imported, "LoadPretrained"),
        path="stabilityai/stable-diffusion-xl-base-1.0",
        vae="",  # it is not here; see below
        gradient_checkpointing=True,
        quantize="none",
        storage="bf16",
        prediction="auto",
    )
    at_least(
        inputs(imported, "AddLora"), kind="lora", rank=32, alpha=16.0, dropout=0.05, dora=True, targets="attention"
    )
    at_least(
        inputs(imported, "ImageFolderDataset"),
        folder="datasets/corgi",
        batch_size=2,
        size=1024,
        repeats=10,
        crop="center",
        buckets=False,
        default_caption="",
    )
    at_least(inputs(imported, "EncodeDataset"), caption_dropout=0.1, trigger_word="")
    at_least(
        inputs(imported, "Rollout"),
        max_step_offset=10,
        probability=1.0,
        sampler="unipc",
        order=2,
        strategy="biased_early",
        step_size=1.0,
        ramp_steps=0,
        start_step=0,
    )
    at_least(inputs(imported, "DiffusionLoss"), loss_type="mse", snr_gamma=5.0, target="original")
    at_least(
        inputs(imported, "Optimizer"),
        optimizer="adamw",
        learning_rate=1e-4,
        lr_schedule="cosine",
        warmup_steps=100,
        weight_decay=0.01,
        beta1=0.9,
        beta2=0.999,
    )
    at_least(
        inputs(imported, "OptimizerStep"),
        steps=3000,
        seed=42,
        accumulation=4,
        clip_norm=1.0,
        ema_decay=0.999,
        precision="bf16",
        sample_every=250,
        checkpoint_every=500,
        keep_checkpoints=5,
        run_name="corgi-sdxl",
    )
    at_least(
        inputs(imported, "SamplePrompts"),
        prompts="a photo of a corgi in the snow",
        negative="blurry, cropped",
        guidance=4.2,
        width=1024,
        height=768,
        steps=25,
        seed=7,
        count=1,
    )
    at_least(inputs(imported, "SaveLora"), name="corgi-sdxl", format="comfyui")
    assert source(imported, "NoisyBatch", "schedule") == ("LoadPretrained", 1)
    assert source(imported, "NoisyBatch", "dataset") == ("EncodeDataset", 0)
    assert source(imported, "EncodeDataset", "pipeline") == ("LoadPretrained", 2)
    assert source(imported, "Rollout", "model") == source(imported, "OptimizerStep", "model") == ("AddLora", 0)
    assert source(imported, "DiffusionLoss", "batch") == ("Rollout", 0)
    assert source(imported, "OptimizerStep", "samples") == ("SamplePrompts", 0)
    assert source(imported, "SaveLora", "model") == ("OptimizerStep", 0)


def test_flux_lora():
    """ReflexFlow by SimpleTuner's own rule, its automatic shift, epochs counted, eight bits, flavour for a path."""
    imported = bring("flux_lora_auto")
    at_least(
        inputs(imported, "LoadPretrained"), path="black-forest-labs/FLUX.1-dev", quantize="int8", guidance=1.0, vae=""
    )
    at_least(inputs(imported, "AddLora"), rank=16, alpha=16.0, dropout=0.0, targets="all")
    at_least(inputs(imported, "ReflexFlowLoss"), reflexflow="auto", objective="spec", fc_norm="l1", target="original")
    at_least(inputs(imported, "ReflexFlowLoss"), alpha=1.0, beta1=10.0, beta2=1.0)
    at_least(inputs(imported, "Rollout"), max_step_offset=10, probability=0.0, sampler="euler", start_step=100)
    at_least(inputs(imported, "Optimizer"), lr_schedule="constant_with_warmup", warmup_steps=50, learning_rate=2e-4)
    # 6 images x (9 repeats + 1) / batch 1 x 10 epochs
    at_least(inputs(imported, "OptimizerStep"), steps=600, clip_norm=2.0, ema_decay=0.0, sample_every=50)
    at_least(inputs(imported, "SamplePrompts"), prompts="a corgi in the snow", width=1024, height=1024, seed=42)
    assert source(imported, "NoisyBatch", "schedule") == ("LoadPretrained", 1)
    assert "FlowMatchingSchedule" not in kinds(imported)


def test_sd3_full():
    """All weights, a static shift, a ramp, ReflexFlow asked for, no samples."""
    imported = bring("sd3_full_shift")
    assert not {"AddLora", "SaveLora", "SamplePrompts"} & set(kinds(imported))
    at_least(inputs(imported, "LoadPretrained"), path="stabilityai/stable-diffusion-3.5-medium", quantize="none")
    at_least(
        inputs(imported, "FlowMatchingSchedule"), shift=3.0, timestep_sampling="logit_normal", logit_mean=0.0,
        logit_std=0.8,
    )  # fmt: skip
    at_least(
        inputs(imported, "Rollout"),
        max_step_offset=8,
        probability=1.0,
        ramp_steps=1000,
        prob_start=0.0,
        prob_end=0.5,
        ramp_shape="cosine",
        sampler="euler",
    )
    at_least(inputs(imported, "ReflexFlowLoss"), reflexflow="enable", alpha=0.5, beta1=2.0, beta2=1.5)
    at_least(inputs(imported, "Optimizer"), optimizer="adafactor", lr_schedule="polynomial", learning_rate=1e-5)
    assert inputs(imported, "Optimizer")["relative_step"] is True  # torch's
    at_least(inputs(imported, "OptimizerStep"), steps=20000, ema_decay=0.0, run_name="sd3-full", seed=0)
    at_least(inputs(imported, "SaveModel"), name="sd3-full")
    assert source(imported, "NoisyBatch", "schedule") == ("FlowMatchingSchedule", 0)
    assert source(imported, "SaveModel", "schedule") == ("FlowMatchingSchedule", 0)
    assert source(imported, "OptimizerStep", "model") == ("LoadPretrained", 0)


def test_dreambooth():
    """Two data sets with weights, LyCORIS' own file, a prompt library, a data set that is switched off."""
    imported = bring("dreambooth")
    at_least(inputs(imported, "AddLora"), kind="lokr", rank=12, alpha=6.0)
    subject, others = inputs(imported, "ImageFolderDataset", 0), inputs(imported, "ImageFolderDataset", 1)
    at_least(subject, folder="datasets/dog", size=512, repeats=20, crop="random", batch_size=2)
    at_least(subject, default_caption="a photo of sks dog")
    at_least(others, folder="datasets/class-dog", size=512, repeats=1, crop="center", default_caption="")
    # 5 images x 20 against 20 images x 1 of half the probability
    at_least(inputs(imported, "CombineDatasets"), weight_1=1.0, weight_2=0.1)
    assert source(imported, "NoisyBatch", "dataset") == ("CombineDatasets", 0)
    at_least(inputs(imported, "DiffusionLoss"), loss_type="huber", huber_c=0.2)
    at_least(inputs(imported, "Rollout"), sampler="dpm", order=3, probability=0.5)
    at_least(inputs(imported, "OptimizerStep"), steps=(5 * 20 + 20) // 2 * 4)
    prompts = "sks dog on a beach\nsks dog in the snow\nsks dog in a city"
    at_least(inputs(imported, "SamplePrompts"), prompts=prompts, count=2, width=512, seed=3)
    titles = [node["_meta"]["title"] for node in imported.prompt.values()]
    assert {"subject", "Encode subject", "regularisation", "Encode regularisation"} <= set(titles)


def test_what_is_left_to_the_user():
    """A family that we cannot train, images that are elsewhere, steps that cannot be counted: said, and left open."""
    ltx = small(model_family="ltxvideo2", pretrained_model_name_or_path="Lightricks/LTX-2")
    assert inputs(ltx, "LoadPretrained")["path"] == ""
    assert "'ltxvideo2' is none that we can train (sd1x, " in ltx.report.left[0]
    assert ltx.kept["config"] == {"pretrained_model_name_or_path": "Lightricks/LTX-2"}
    at_least(inputs(ltx, "ReflexFlowLoss"), reflexflow="auto")
    flavour = small(model_family="sdxl", model_flavour="huge")
    assert "'huge' is not known here" in flavour.report.left[0]
    far = small([{"id": "a", "type": "huggingface", "dataset_name": "x/y"}], max_train_steps=0, num_train_epochs=3)
    assert inputs(far, "ImageFolderDataset")["folder"] == ""
    assert inputs(far, "OptimizerStep")["steps"] == 1000
    assert any("data set x/y of the Hugging Face hub" in line for line in far.report.left)
    assert any("x 3 into Optimizer Step" in line for line in far.report.left)
    two = small([{"id": "a", "instance_data_dir": "nowhere"}, {"id": "b", "instance_data_dir": "datasets/dog"}])
    assert any("'nowhere' holds no images" in line for line in two.report.left)
    assert any("auto-weighting" in line for line in two.report.left)
    alone = small(lora_type="lycoris")
    assert any("its file is not here" in line for line in alone.report.left)
    none = import_config(Files({"model_family": "flux"}))
    assert any("there is no data set" in line for line in none.report.left)
    assert not any("caption" in line for line in none.report.changed)


def test_an_imported_workflow_trains(tiny_pipeline, home):
    """End to end on a tiny FLUX: encoded, rolled out, trained with ReflexFlow, sampled and saved."""
    config = json.loads((home / "flux_lora_auto.json").read_text())
    config |= {"pretrained_model_name_or_path": str(tiny_pipeline("flux")), "output_dir": "out/tiny"}
    config |= {"base_model_precision": None, "base_model_default_dtype": "fp32", "mixed_precision": "no"}
    config |= {"max_train_steps": 2, "train_batch_size": 2, "lora_rank": 2, "scheduled_sampling_start_step": 0}
    config |= {"scheduled_sampling_max_step_offset": 2, "scheduled_sampling_probability": 1}
    config |= {"validation_resolution": "64x64", "validation_num_inference_steps": 1}
    config["data_backend_config"] = json.loads((home / "pets.backends.json").read_text())
    config["data_backend_config"][0] |= {"resolution": 64, "repeats": 0}
    (home / "tiny.json").write_text(json.dumps(config))
    assert run("tiny.json") == 0
    assert main(["run", "workflow.json", "--output", "output", "--device", "cpu"]) == 0
    (folder,) = (home / "output" / "rollout").iterdir()
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 1]
    assert all(row["rollout_probability"] == 1 and "loss_anti_drift" in row for row in rows)
    assert list((folder / "samples").iterdir())
    assert [path.name for path in (home / "output" / "loras").iterdir()] == ["tiny_00001.safetensors"]
