"""SimpleTuner configurations, brought over: every setting where it belongs, and nothing changed in silence."""

import json
import re
import shutil
from pathlib import Path

import pytest
from canvas import check_canvas
from comfyui_rollout import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS
from comfyui_rollout.__main__ import main
from comfyui_rollout.graph import load, object_info, to_prompt, validate
from comfyui_rollout.graph.workflow.layout import Group, to_workflow
from comfyui_rollout.importing.simpletuner import ROOM, Files, import_config, key_table, read_files
from comfyui_rollout.importing.simpletuner.changes import CHANGES
from comfyui_rollout.importing.simpletuner.table import BACKEND, CAPTION_SHUFFLE, CONFIG, LYCORIS
from PIL import Image

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "recorded" / "simpletuner"
OURS = object_info(NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS)
CONFIGS = ("sdxl_lora_unipc", "flux_lora_auto", "sd3_full_shift", "dreambooth")
IMAGES = {"corgi": 6, "dog": 5, "class-dog": 20}
ROLLOUTS = {"scheduled_sampling_max_step_offset": 10, "scheduled_sampling_probability": 1.0}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A folder with the configurations and the images they name, in which SimpleTuner would be started."""
    shutil.copytree(DATA, tmp_path, dirs_exist_ok=True)
    for name, count in IMAGES.items():
        (tmp_path / "datasets" / name).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (64, 64), (20 * number, 90, 90)).save(tmp_path / "datasets" / name / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def bring(name):
    return import_config(read_files(Path(f"{name}.json")))


def small(backends=(), **config):
    """A configuration with these keys; what it needs beside them is there."""
    needed = {"model_family": "flux", "model_type": "lora", "max_train_steps": 10, "grad_clip_method": "norm"}
    folder = {"id": "corgi", "instance_data_dir": "datasets/corgi", "caption_strategy": "textfile", "crop": True}
    return import_config(Files(needed | config, tuple(backends) or (folder,)))


def inputs(imported, kind, place=0):
    """The inputs of a node, by its class without the prefix; links are left out."""
    names = (f"Rollout{kind}", kind)
    found = [node["inputs"] for node in imported.prompt.values() if node["class_type"] in names]
    return {name: value for name, value in found[place].items() if not isinstance(value, list)}


def short(node):
    """A node's class without the prefix, but for Rollout itself."""
    return node["class_type"].removeprefix("Rollout") or "Rollout"


def kinds(imported):
    return [short(node) for node in imported.prompt.values()]


def source(imported, kind, name):
    """The class of the node that an input of the only node of a class is linked to, and the output's index."""
    (node,) = [node for node in imported.prompt.values() if node["class_type"] in (f"Rollout{kind}", kind)]
    origin, slot = node["inputs"][name]
    return short(imported.prompt[origin]), slot


def at_least(found, **expected):
    assert {name: found[name] for name in expected} == expected


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


def test_spelling_does_not_matter():
    """Dashes or none, texts or JSON's own numbers and switches: the same graph."""
    files = read_files(Path("sdxl_lora_unipc.json"))
    plain = {}
    for key, value in files.config.items():
        try:
            plain[key.lstrip("-")] = json.loads(value) if isinstance(value, str) else value
        except ValueError:
            plain[key.lstrip("-")] = value
    assert plain["lora_dropout"] == 0.05
    assert import_config(Files(plain, files.backends)).prompt == import_config(files).prompt


@pytest.mark.parametrize("unset", [None, "", "None", "none", "null", " None "])
def test_unset_is_simpletuners_default(unset):
    """An option that is not set has SimpleTuner's default, not ours: the training is to be the same."""
    imported = small(lora_rank=unset, learning_rate=unset, flow_schedule_shift=unset, max_grad_norm=unset)
    assert imported.prompt == small().prompt
    assert inputs(imported, "AddLora")["rank"] == 16
    assert inputs(imported, "Optimizer")["learning_rate"] == 4e-7
    assert inputs(imported, "FlowMatchingSchedule")["shift"] == 3.0
    assert inputs(imported, "OptimizerStep")["clip_norm"] == 2.0


def test_what_has_no_place_is_kept_word_for_word():
    """Unknown keys are named and kept as they were written; uploads, messages and secrets are named and left out."""
    strange = {"--new_option": {"deep": [1, "two"]}, "lr_end": "1e-7", "controlnet": False, "cr\u00e8me": None}
    gone = {"--hub_model_id": "me/x", "push_checkpoints_to_hub": True, "webhook_config": "hook.json", "report_to": "x"}
    backend = {"instance_data_dir": "datasets/corgi", "max_upscale_threshold": 2, "aws_secret_access_key": "secret"}
    imported = small([backend], **strange, **gone)
    assert imported.kept == {"config": strange, "data_backend_config": [{"max_upscale_threshold": 2}]}
    for key in ["new_option", "max_upscale_threshold"]:
        assert any(key in line for line in imported.report.unmapped), key
    assert any(line.startswith("lr_end: ") for line in imported.report.changed)
    assert {"controlnet", "cr\u00e8me"} <= {*imported.report.idle}
    for key in [*gone, "aws_secret_access_key"]:
        assert any(key.strip("-") in line for line in imported.report.ignored), key
    assert "secret" not in json.dumps([imported.prompt, imported.kept])
    text = imported.report.text()
    assert all(key.strip("-") in text for key in [*strange, *gone])


@pytest.mark.parametrize("name", CONFIGS)
def test_every_key_is_accounted_for(name):
    """Whatever a configuration holds is in exactly one of: taken over, kept, ignored, different, off."""
    files = read_files(Path(f"{name}.json"))
    report = import_config(files).report
    lines = [*report.mapped, *report.unmapped, *(f"{line} = " for line in [*report.ignored, *report.idle])]
    lines += [line for line in report.changed if line.split(": ")[0] in CHANGES]
    named = [re.split(" = |: ", line)[0] for line in lines if not line.startswith(("lycoris_config: ", "data set"))]
    given = [key.lstrip("-") for key, value in files.config.items() if value is not None]
    assert sorted(set(named)) == sorted(given)
    assert [key for key in named if named.count(key) > 1] in ([], ["num_train_epochs"] * 2)  # how it was counted, too


def test_every_key_of_the_table_is_read():
    """A key that the table promises is asked for in some configuration, or it would be lost in silence."""
    texts = {
        "model_type": "lora",
        "validation_prompt": "x",
        "validation_resolution": "512",
        "validation_disable": False,
    }
    given = {key: entry.default for key, entry in CONFIG.items() if entry.default not in (None, "")} | texts
    given |= {key: "x" for key, entry in CONFIG.items() if key not in given and entry.kind == "text"}
    given |= {key: 1 for key, entry in CONFIG.items() if key not in given and entry.kind in ("number", "integer")}
    given |= {"scheduled_sampling_reflexflow": True, "max_train_steps": 0, "mixflow_enabled": False}
    given |= {"peft_lora_target_modules": ["to_q"], "lycoris_config": {}, "user_prompt_library": {"a": "b"}}
    given |= {"data_backend_config": [], "model_family": "flux"}
    assert given.keys() == CONFIG.keys()
    variants = [
        {"model_flavour": "dev", "pretrained_model_name_or_path": None},
        {"prediction_type": None, "flux_guidance_mode": "random-range", "flow_use_beta_schedule": True},
        {"lora_type": "lycoris", "peft_lora_target_modules": None, "use_ema": True},
        {
            "model_family": "sdxl",
            "prediction_type": "v_prediction",
            "rescale_betas_zero_snr": True,
            "loss_type": "huber",
        },
        {"prediction_type": None},
    ]
    backend = {key: entry.default for key, entry in BACKEND.items()}
    backend |= {"caption_shuffle": {"enable": True}} | {
        "crop": True,
        "id": "a",
        "dataset_name": "x/y",
        "instance_data_dir": "datasets/corgi",
        "resolution": 512,
        "resolution_type": "pixel",
        "conditioning_data": "b",
    }
    backends = (
        backend | {"caption_strategy": "textfile", "instance_prompt": "a", "prepend_instance_prompt": True},
    ) * 2
    lycoris = {key: entry.default for key, entry in LYCORIS.items()}
    lines = []
    for variant in variants:
        for sets in (backends, ()):
            report = import_config(Files(given | variant, sets, lycoris)).report
            lines += [*report.mapped, *report.idle]
    read = {line.removeprefix("data set 1: ").split(" = ")[0] for line in lines}
    assert set(CONFIG) - read == set()
    assert set(BACKEND) - read == set()
    assert {f"lycoris_config: {key}" for key in LYCORIS} - read == set()


def test_the_table_names_inputs_that_exist():
    """Where an option goes is written as --set takes it, and every such input exists."""
    for table in (CONFIG, BACKEND, CAPTION_SHUFFLE, LYCORIS):
        for key, entry in table.items():
            for target in filter(None, entry.goes_to.split(", ")):
                node, name = target.split(".")
                types = NODE_CLASS_MAPPINGS[node if node == "Rollout" else f"Rollout{node}"].INPUT_TYPES()
                assert name in types["required"] | types.get("optional", {}), (key, target)


def test_the_documentation_has_every_key():
    """docs/import_simpletuner.md holds the very table that the import works by."""
    page = (ROOT / "docs" / "import_simpletuner.md").read_text()
    assert key_table() in page
    for key in [*CONFIG, *BACKEND, *CAPTION_SHUFFLE, *LYCORIS]:
        assert f"| `{key}` |" in page


@pytest.mark.parametrize("family", ["flux", "sd3", "sdxl", "sd1x"])
@pytest.mark.parametrize("wish", [None, True, False])
def test_reflexflows_rule(family, wish):
    """Not set: on for flow matching with rollouts, which is what auto means; true insists; false opts out."""
    imported = small(model_family=family, scheduled_sampling_reflexflow=wish, **ROLLOUTS)
    if family in ("sdxl", "sd1x") or wish is False:
        assert "ReflexFlowLoss" not in kinds(imported)
        assert source(imported, "OptimizerStep", "loss") == ("DiffusionLoss", 0)
    else:
        assert inputs(imported, "ReflexFlowLoss")["reflexflow"] == ("enable" if wish else "auto")
        assert "DiffusionLoss" not in kinds(imported)
    said = any("only for flow matching" in line for line in imported.report.changed)
    assert said == (family in ("sdxl", "sd1x") and wish is True)


@pytest.mark.parametrize(
    ("family", "flavour", "path"),
    [
        ("flux2", None, "black-forest-labs/FLUX.2-klein-base-9B"),
        ("flux2", "dev", "black-forest-labs/FLUX.2-dev"),
        ("flux", "kontext", "black-forest-labs/FLUX.1-Kontext-dev"),
        ("qwen_image", "edit-v2", "Qwen/Qwen-Image-Edit-2509"),
        ("z_image", "turbo", "Tongyi-MAI/Z-Image-Turbo"),
        ("krea2", "raw", "krea/Krea-2-Raw"),
        ("wan", None, "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"),
        ("ideogram", "fp8", "CalamitousFelicitousness/Ideogram-4-bf16-Diffusers"),
        ("anima", "base-v1.0", "circlestone-labs/Anima-Base-v1.0-Diffusers"),
        ("ernie", None, "baidu/ERNIE-Image"),
        ("hidream", "full", "HiDream-ai/HiDream-I1-Full"),
    ],
)
def test_newer_families_have_their_models(family, flavour, path):
    """Each flavour its own, and the family's default where none is named."""
    imported = small(model_family=family, model_flavour=flavour)
    assert inputs(imported, "LoadPretrained")["path"] == path


def test_perceptrons_of_ideogram_are_trained_too():
    """So it is there unless somebody names layers; other families have adapters on attention."""
    assert inputs(small(model_family="ideogram", model_type="lora"), "AddLora")["targets"] == "all"
    assert inputs(small(model_family="anima", model_type="lora"), "AddLora")["targets"] == "attention"
    named = small(model_family="ideogram", model_type="lora", peft_lora_target_modules=["attention.to_q"])
    assert inputs(named, "AddLora")["pattern"] == "attention.to_q"


def test_pairs_are_brought_over():
    """A data set of conditioning pictures is the control folder of the one that names it."""
    made = {"id": "made", "instance_data_dir": "datasets/corgi", "caption_strategy": "textfile"}
    shown = {"id": "shown", "dataset_type": "conditioning", "instance_data_dir": "datasets/before"}
    imported = small([made | {"conditioning_data": ["shown"]}, shown], model_family="flux", model_flavour="kontext")
    assert inputs(imported, "ImageFolderDataset")["control"] == "datasets/before"
    assert kinds(imported).count("ImageFolderDataset") == 1
    assert not any("no place here" in line for line in imported.report.changed)
    alone = small([made, shown], model_family="flux")
    assert any("'conditioning' has no place here" in line for line in alone.report.changed)


RAMP = ROLLOUTS | {"scheduled_sampling_ramp_steps": 100}


@pytest.mark.parametrize(
    ("config", "words", "node", "values"),
    [
        (ROLLOUTS, "10 steps span 1% of it", "Rollout", {"step_size": 1.0}),
        (ROLLOUTS, "always takes Euler steps", "Rollout", {"sampler": "euler"}),
        (ROLLOUTS | {"scheduled_sampling_sampler": "dpm"}, "choose dpm there", "Rollout", {"sampler": "euler"}),
        (ROLLOUTS | {"model_family": "sdxl"}, "towards more noise in SimpleTuner", "Rollout", {"sampler": "unipc"}),
        (RAMP, "takes scheduled_sampling_probability (1) in place of 0", "Rollout", {"prob_start": 0.0}),
        (
            RAMP | {"scheduled_sampling_prob_end": 0},
            "scheduled_sampling_prob_end: SimpleTuner",
            "Rollout",
            {"prob_end": 0},
        ),
        (
            RAMP | {"scheduled_sampling_start_step": 50, "scheduled_sampling_prob_start": 0.2},
            "before it SimpleTuner rolls out with prob_start",
            "Rollout",
            {"start_step": 50, "prob_start": 0.2},
        ),
        (
            ROLLOUTS | {"scheduled_sampling_start_step": 50},
            "ignores it without ramp_steps",
            "Rollout",
            {"start_step": 50},
        ),
        (
            ROLLOUTS | {"scheduled_sampling_probability": 0},
            "at 0 SimpleTuner still trains with ReflexFlow",
            "Rollout",
            {"probability": 0.0},
        ),
        (ROLLOUTS, "stay at 1 and do nothing", "ReflexFlowLoss", {"fc_norm": "l1"}),
        (ROLLOUTS, "adds the anti-drift term to every item", "ReflexFlowLoss", {"beta1": 10.0}),
        ({"scheduled_sampling_reflexflow": True}, "there are no rollouts", "ReflexFlowLoss", {"reflexflow": "enable"}),
        ({"snr_gamma": 5, "scheduled_sampling_reflexflow": False}, "snr_gamma", "DiffusionLoss", {"snr_gamma": 0.0}),
        ({"grad_clip_method": "value"}, "happens more often", "OptimizerStep", {"clip_norm": 2.0}),
        ({"mixed_precision": "fp8"}, "'fp8' is not offered", "OptimizerStep", {"precision": "bf16"}),
        ({"lr_scheduler": "sine"}, "sine", "Optimizer", {"lr_schedule": "cosine"}),
        ({"lr_scheduler": "wavy"}, "there is no 'wavy' here", "Optimizer", {"lr_schedule": "constant"}),
        ({"optimizer": "bnb-lion8bit"}, "becomes 'lion'", "Optimizer", {"optimizer": "lion"}),
        ({"optimizer": "soap"}, "becomes 'adamw'", "Optimizer", {"optimizer": "adamw"}),
        ({"base_model_precision": "int4-quanto"}, "it is nf4, which needs", "LoadPretrained", {"quantize": "nf4"}),
        ({"base_model_precision": "int2-quanto"}, "has no equal here", "LoadPretrained", {"quantize": "none"}),
        ({"flux_guidance_mode": "random-range"}, "its middle, 2", "LoadPretrained", {"guidance": 2.0}),
        ({"offset_noise": True}, "in a share of the batches", "NoisyBatch", {"noise_offset": 0.1}),
        ({"flux_lora_target": "tiny"}, "becomes the preset 'attention'", "AddLora", {"targets": "attention"}),
        (
            {"model_family": "sdxl", "rescale_betas_zero_snr": True},
            "says nothing at pure noise",
            "LoadPretrained",
            {"prediction": "auto"},
        ),
        (
            {"model_family": "sdxl", "prediction_type": "flow_matching"},
            "samples with the pipeline's own scheduler",
            "FlowMatchingSchedule",
            {"shift": 3.0},
        ),
    ],
)
def test_differences_are_said(config, words, node, values):
    """Where SimpleTuner does not do what it says, or we cannot do the same: in words, with what was set instead."""
    imported = small(**config)
    assert any(words in line for line in imported.report.changed), imported.report.changed
    at_least(inputs(imported, node), **values)
    for line in imported.report.changed:
        assert line in imported.note


def test_nothing_is_said_where_nothing_differs():
    """Rollouts off, an optimizer that we have: no warnings to wade through."""
    config = {"optimizer": "adamw_bf16", "validation_prompt": "a", "loss_type": "l2"}
    assert small(**config).report.changed == []


def test_another_network():
    """A file with the network alone goes into path, and the model that it belongs to becomes base."""
    for key in ("pretrained_transformer_model_name_or_path", "pretrained_unet_model_name_or_path"):
        found = inputs(small(pretrained_model_name_or_path="me/flux", **{key: "mine.safetensors"}), "LoadPretrained")
        at_least(found, path="mine.safetensors", base="me/flux")
        folder = small(pretrained_model_name_or_path="me/flux", **{key: "me/network"})
        at_least(inputs(folder, "LoadPretrained"), path="me/flux", base="")
        assert any("'me/network' is no .safetensors file" in line for line in folder.report.left)


def test_shuffled_tags():
    """Orders besides the original one; what cannot be had is said."""
    folder = {"instance_data_dir": "datasets/corgi", "caption_strategy": "textfile", "crop": True}
    shuffled = small([folder | {"caption_shuffle": {"enable": "true", "count": 3}}])
    at_least(inputs(shuffled, "EncodeDataset"), shuffle_tags=True, caption_variants=4)
    assert not any("caption_shuffle" in line for line in shuffled.report.changed)
    at_least(inputs(small([folder | {"caption_shuffle": {"enable": False}}]), "EncodeDataset"), shuffle_tags=False)
    periods = small([folder | {"caption_shuffle": {"enable": True, "split_on": "period"}}])
    assert any("caption_shuffle" in line for line in periods.report.changed)
    with pytest.raises(ValueError, match="data set 1: caption_shuffle: count: 'x' is not a number"):
        small([folder | {"caption_shuffle": {"enable": True, "count": "x"}}])


def test_another_vae(home):
    """One that is here is used; for one that would have to be fetched, the model's own, and that is said."""
    (home / "vae.safetensors").touch()
    assert (
        inputs(small(pretrained_vae_model_name_or_path="vae.safetensors"), "LoadPretrained")["vae"] == "vae.safetensors"
    )
    far = small(pretrained_vae_model_name_or_path="madebyollin/sdxl-vae-fp16-fix")
    assert inputs(far, "LoadPretrained")["vae"] == ""
    assert any("'madebyollin/sdxl-vae-fp16-fix' is no file" in line for line in far.report.changed)


@pytest.mark.parametrize(
    ("precision", "ours"),
    [
        ("no_change", "none"),
        ("int8-torchao", "int8"),
        ("int4-torchao", "nf4"),
        ("uint4-sdnq", "nf4"),
        ("fp8wo-torchao", "fp8"),
        ("nf4-bnb", "nf4"),
    ],
)
def test_precisions(precision, ours):
    """By what the number format is called, whoever makes it."""
    assert inputs(small(base_model_precision=precision), "LoadPretrained")["quantize"] == ours


@pytest.mark.parametrize(
    ("kept", "mixed", "ours"),
    [
        ("bf16", "bf16", "bf16"),
        ("bf16", "fp16", "fp16"),
        ("bf16", "no", "bf16"),
        ("fp16", "no", "fp16"),
        ("fp16", "bf16", "bf16"),
        ("fp32", "fp16", "fp32"),
        ("bf16", "fp8", "bf16"),
    ],
)
def test_storage_goes_with_precision(kept, mixed, ours):
    """Optimizer Step refuses bf16 with fp16."""
    imported = small(base_model_default_dtype=kept, mixed_precision=mixed)
    storage, precision = inputs(imported, "LoadPretrained")["storage"], inputs(imported, "OptimizerStep")["precision"]
    assert storage == ours
    assert {storage, precision} != {"bf16", "fp16"}


def test_squeezed_weights_are_checkpointed():
    """Load Pretrained refuses them otherwise; whole ones are left as the user had them."""
    for precision, ours in (("int8-torchao", True), ("nf4-bnb", False), ("no_change", False)):
        imported = small(base_model_precision=precision, gradient_checkpointing=False)
        assert inputs(imported, "LoadPretrained")["gradient_checkpointing"] is ours
        assert any(line.startswith("gradient_checkpointing: it is on") for line in imported.report.changed) is ours


def test_noise_schedules():
    """Uniform and beta timesteps; zero terminal SNR brings the DDPM schedule."""
    uniform = small(flow_use_uniform_schedule=True, flow_use_beta_schedule=True)
    at_least(inputs(uniform, "FlowMatchingSchedule"), timestep_sampling="uniform", logit_std=1.0)
    beta = small(flow_use_beta_schedule="true", flow_beta_schedule_beta="3", flow_schedule_shift=0)
    at_least(inputs(beta, "FlowMatchingSchedule"), timestep_sampling="beta", beta_alpha=2.0, beta_beta=3.0, shift=1.0)
    zero = small(model_family="sd2x", rescale_betas_zero_snr=True)
    at_least(inputs(zero, "DDPMSchedule"), prediction="v_prediction", zero_terminal_snr=True)
    assert source(zero, "NoisyBatch", "schedule") == ("DDPMSchedule", 0)


def test_what_changes_the_noise():
    """MixFlow, a perturbed input and an offset are inputs of Noisy Batch; off, they are 0."""
    noise = ("mixflow", "input_perturbation", "perturbation_steps", "noise_offset")

    def brought(**config):
        return {name: inputs(small(**config), "NoisyBatch").get(name, 0) for name in noise}

    assert brought(mixflow_gamma=0.5, noise_offset=0.05) == dict.fromkeys(noise, 0)
    on = {"mixflow_enabled": True, "input_perturbation": 0.1, "input_perturbation_steps": 9, "offset_noise": True}
    assert brought(**on, noise_offset=0.05) == {
        "mixflow": 0.8,
        "input_perturbation": 0.1,
        "perturbation_steps": 9,
        "noise_offset": 0.05,
    }


def test_lora_layers():
    """A list of layers, as JSON or as a text, and FLUX' named choices."""
    for layers in (["to_q", "to_k"], '["to_q", "to_k"]'):
        at_least(inputs(small(peft_lora_target_modules=layers), "AddLora"), targets="custom", pattern="to_q, to_k")
    context = inputs(small(flux_lora_target="context"), "AddLora")
    at_least(context, targets="custom", pattern="add_k_proj, add_q_proj, add_v_proj, to_add_out")
    whole = import_config(
        Files({"model_family": "flux", "model_type": "lora", "lora_type": "lycoris"}, (), {"full_matrix": True})
    )
    at_least(inputs(whole, "AddLora"), kind="lokr", rank=4096, alpha=4096.0)


def test_captions():
    """Instance prompts become captions or trigger words; captions that cannot be made here are said to be missing."""
    folder = {"instance_data_dir": "datasets/corgi", "instance_prompt": "sks dog"}
    only = small([folder | {"caption_strategy": "textfile", "only_instance_prompt": True}])
    assert inputs(only, "ImageFolderDataset")["default_caption"] == "sks dog"
    before = small([folder | {"caption_strategy": "textfile", "prepend_instance_prompt": "true"}])
    assert inputs(before, "EncodeDataset")["trigger_word"] == "sks dog"
    assert inputs(before, "ImageFolderDataset")["default_caption"] == ""
    names = small([folder | {"caption_strategy": "filename"}])
    assert any("'filename'" in line for line in names.report.changed)


def test_sizes_and_crops():
    """Megapixels and pixels, to multiples of 64; everything but square crops is bucketed."""
    folder = {"instance_data_dir": "datasets/corgi", "caption_strategy": "textfile"}
    for more, size, buckets, crop in [
        ({"resolution": 1.0, "resolution_type": "area", "crop": True}, 1024, False, "random"),
        ({"resolution": "0.5", "resolution_type": "area"}, 704, True, "center"),
        ({"resolution": 768, "crop": True, "crop_aspect": "closest"}, 768, True, "random"),
        ({"crop": "true", "crop_style": "corner"}, 512, False, "center"),
    ]:
        imported = small([folder | more], resolution=512)
        at_least(inputs(imported, "ImageFolderDataset"), size=size, buckets=buckets, crop=crop)


def test_many_data_sets():
    """More than Combine Datasets takes are combined in turn, each with its share; uniform sampling ignores sizes."""
    folders = [{"id": str(number), "instance_data_dir": "datasets/corgi", "repeats": number} for number in range(6)]
    imported = small(folders, data_backend_sampling="uniform")
    assert kinds(imported).count("CombineDatasets") == 2
    assert inputs(imported, "CombineDatasets", 1) == {
        "weight_1": 4.0,
        "weight_2": 1.0,
        "weight_3": 1.0,
        "weight_4": 1.0,
    }
    by_size = small(folders[:2])
    at_least(inputs(by_size, "CombineDatasets"), weight_1=0.5, weight_2=1.0)


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


@pytest.mark.parametrize("key", CHANGES)
def test_what_changes_the_training_is_said(key):
    """Not among what is kept, where nobody looks; and nothing is said of it where it is off."""
    for on in (True, "true", 0.5, {"a": 1}):
        imported = small(model_family="sd3", **{key: on})
        assert any(line.startswith(f"{key}: ") for line in imported.report.changed), on
        assert not any(key in line for line in imported.report.unmapped)
        assert imported.kept["config"][key] == on
    for off in (False, "false", 0, "none", "", None, []):
        imported = small(model_family="sd3", **{key: off})
        assert not any(key in line for line in [*imported.report.changed, *imported.report.unmapped]), off


def test_defaults_are_not_lines():
    """What is off, or what SimpleTuner does anyway, is named in one line."""
    imported = small(use_ema=False, push_to_hub="false", learning_rate="4e-7", lora_type="standard", lora_rank=16)
    assert {"use_ema", "push_to_hub", "learning_rate", "lora_type", "lora_rank"} <= {*imported.report.idle}
    assert not any("use_ema" in line for line in [*imported.report.mapped, *imported.report.ignored])
    (line,) = [line for line in imported.report.text().splitlines() if line.startswith("Off, or as by default")]
    assert "use_ema" in line


@pytest.mark.parametrize("name", ["prodigy", "prodigy-schedulefree", "dadaptation"])
def test_optimizers_that_find_their_rate(name):
    """AdamW at 1.0 would tear the model apart: it gets a usual rate, unless we have that optimizer."""
    imported = small(optimizer=name, learning_rate=1.0)
    ours = inputs(imported, "Optimizer")
    if ours["optimizer"] not in name:
        assert ours["learning_rate"] == 1e-4
        assert any("finds its own rate" in line for line in imported.report.changed)


def test_paths_of_the_examples(home):
    """config/examples/ means simpletuner/examples/, from wherever the import is started."""
    examples = home / "checkout" / "simpletuner" / "examples"
    (examples / "flux.lora").mkdir(parents=True)
    config = {"model_family": "flux", "data_backend_config": "config/examples/sets.json", "max_train_steps": 5}
    (examples / "flux.lora" / "config.json").write_text(json.dumps(config))
    (examples / "sets.json").write_text('[{"instance_data_dir": "datasets/corgi", "caption_strategy": "textfile"}]')
    files = read_files(examples / "flux.lora" / "config.json")
    assert (len(files.backends), files.missing) == (1, ())
    copied = home / "checkout" / "mine" / "config.json"
    copied.parent.mkdir()
    copied.write_text(json.dumps(config))
    assert read_files(copied).missing == ()


def test_toml_and_env(home):
    """SimpleTuner's two other kinds of configuration give the same graph."""
    pytest.importorskip("tomllib", reason="from Python 3.11 on")
    plain = {"model_family": "flux", "model_type": "lora", "train_batch_size": 2, "max_train_steps": 7, "lora_rank": 8}
    expected = import_config(Files(plain)).prompt
    (home / "config.toml").write_text("\n".join(f"{key} = {json.dumps(value)}" for key, value in plain.items()))
    (home / "config.env").write_text(
        "# comment\nexport MODEL_FAMILY='flux'\nexport MODEL_TYPE=lora  # end\nBATCH=2\n"
        'TRAIN_BATCH_SIZE=${BATCH}\nMAX_NUM_STEPS="7"\nTRAINER_EXTRA_ARGS="--lora_rank=8"\n'
        'TRAINER_EXTRA_ARGS+=" --push_to_hub"\n'
    )
    for name in ("config.toml", "config.env"):
        assert import_config(read_files(home / name)).prompt == expected, name
    (home / "bad.toml").write_text("a = = 1")
    with pytest.raises(ValueError, match=r"bad\.toml: is not TOML"):
        read_files(home / "bad.toml")
    (home / "bad.env").write_text("A='x")
    with pytest.raises(ValueError, match=r"bad\.env, line 1: No closing quotation"):
        read_files(home / "bad.env")


def test_lycoris_presets():
    """Attention and FeedForward by their layers, the factor as it is; what cannot be had is said."""
    lokr = {"algo": "lokr", "factor": 16, "apply_preset": {"target_module": ["Attention", "FeedForward"]}}

    def added(lycoris, family="sdxl"):
        config = {"model_family": family, "model_type": "lora", "lora_type": "lycoris", "max_train_steps": 5}
        imported = import_config(Files(config, (), lycoris))
        return inputs(imported, "AddLora"), imported.report.changed

    found, said = added(lokr)
    layers = "to_q, to_k, to_v, to_out.0, ff.net.0.proj, ff.net.2"
    at_least(found, kind="lokr", factor=16, targets="custom", pattern=layers)
    assert not any("lycoris_config" in line for line in said)
    at_least(added(lokr | {"apply_preset": {"target_module": ["Attention"]}})[0], targets="attention", factor=16)
    only = added(lokr | {"apply_preset": {"target_module": ["FeedForward"]}}, "sd3")[0]
    at_least(only, targets="custom", pattern="ff.net.0.proj, ff.net.2")
    apart = {"target_module": ["Attention", "ResnetBlock2D"], "module_algo_map": {"Attention": {"factor": 8}}}
    _, said = added(lokr | {"apply_preset": apart})
    assert any("the modules ResnetBlock2D are not known" in line for line in said)
    assert any("module_algo_map" in line for line in said)


@pytest.mark.parametrize(
    ("family", "flavour", "model"),
    [
        ("sd1x", "dreamshaper", "Lykon/dreamshaper-8"),
        ("sd2x", "pseudoflex-v2", "bghira/pseudo-flex-v2"),
        ("flux", "libreflux", "jimmycarter/LibreFlux-SimpleTuner"),
        ("lumina2", "neta-lumina", "terminusresearch/neta-lumina-v1"),
    ],
)
def test_flavours(family, flavour, model):
    """All of SimpleTuner's that can be trained here, its defaults under their names too."""
    imported = small(model_family=family, model_flavour=flavour)
    assert inputs(imported, "LoadPretrained")["path"] == model
    assert not imported.report.left


def test_text_encoders_are_trained_too():
    """Where we can; else it is said."""
    config = {"train_text_encoder": True, "lora_dropout": 0}
    assert inputs(small(model_family="sdxl", **config), "AddLora")["text_encoders"] is True
    flux = small(model_family="flux", **config)
    assert inputs(flux, "AddLora")["text_encoders"] is False
    assert any(line.startswith("train_text_encoder: ") for line in flux.report.changed)


def test_pixel_is_the_smaller_edge():
    """Said where images may be oblong; squares are the same either way."""
    folder = {"instance_data_dir": "datasets/corgi", "caption_strategy": "textfile", "resolution": 512}
    oblong = small([folder | {"resolution_type": "pixel"}])
    assert any("512 is the smaller edge there" in line for line in oblong.report.changed)
    for more in ({"resolution_type": "pixel", "crop": True}, {"resolution_type": "pixel_area"}):
        assert not any("smaller edge" in line for line in small([folder | more]).report.changed)


def test_no_steps_at_all():
    """Both at 0, which SimpleTuner refuses: a number to be written, not one step."""
    imported = small(max_train_steps=0, num_train_epochs=0)
    assert inputs(imported, "OptimizerStep")["steps"] == 1000
    assert any("both are 0, which SimpleTuner refuses" in line for line in imported.report.left)


def test_folder_names_are_only_names():
    """SimpleTuner does not read kohya's, so the import does not either."""
    assert inputs(small(), "ImageFolderDataset")["kohya_folders"] is False


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"learning_rate": "fast"}, "learning_rate: 'fast' is not a number"),
        ({"learning_rate": True}, "learning_rate: True is not a number"),
        ({"learning_rate": 10**400}, "learning_rate: 1"),
        ({"lora_rank": 1.5}, "lora_rank: 1.5 is not a whole number"),
        ({"use_ema": "perhaps"}, "use_ema: 'perhaps' is neither true nor false"),
        ({"validation_prompt": ["a"]}, "validation_prompt: ['a'] is not a text"),
        ({"validation_prompt": "a", "validation_resolution": "large"}, "validation_resolution: 'large'"),
        ({"seed": 1, "--seed": 2}, "seed is given twice"),
        ({"mixflow_enabled": "true"} | ROLLOUTS, "mixflow_enabled cannot be combined with"),
    ],
)
def test_wrong_values_are_one_line(config, words, one_line):
    """The key and the value are named, with or without a folder to write into."""
    with pytest.raises(ValueError, match=re.escape(words)) as caught:
        small(**config)
    one_line(caught)


def run(*arguments):
    return main(["import-config", *map(str, arguments)])


def test_the_command(home, capsys):
    """It writes the workflow with all that has no place, says what there is to say, and overwrites nothing unasked."""
    assert run("dreambooth.json", "-o", "made.json") == 0
    said = capsys.readouterr().out
    assert "made.json" in said
    assert "Different from before:" in said
    workflow = load(home / "made.json")
    assert to_prompt(workflow, OURS) == bring("dreambooth").prompt
    assert workflow["extra"]["simpletuner"] == bring("dreambooth").kept
    assert "not-to-be-kept" not in (home / "made.json").read_text()
    before = (home / "made.json").read_text()
    assert run("flux_lora_auto.json", "-o", "made.json") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--force" in line
    assert (home / "made.json").read_text() == before
    assert run("flux_lora_auto.json", "-o", "made.json", "--force") == 0
    assert to_prompt(load(home / "made.json"), OURS) == bring("flux_lora_auto").prompt
    capsys.readouterr()
    assert main(["validate", "made.json"]) == 0


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("gone.json", None, "gone.json: cannot be read"),
        ("broken.json", "{", "broken.json: is not JSON"),
        ("huge.json", '{"anything": 1e999}', "huge.json: is not JSON"),
        ("nan.json", '{"learning_rate": NaN}', "nan.json: is not JSON"),
        ("list.json", "[1, 2]", "a SimpleTuner configuration is a JSON object, and this is a list"),
        ("bytes.json", b"\xff\x00", "bytes.json: is not JSON"),
        ("sets.json", '{"data_backend_config": "list.txt"}', "list.txt: is not JSON"),
        ("bad.json", '{"data_backend_config": [1]}', "data_backend_config: a JSON list of data sets is needed"),
        ("value.json", '{"--model_family": "flux", "--lora_rank": "x"}', "lora_rank: 'x' is not a number"),
    ],
)
def test_the_command_refuses(home, name, content, words, capsys):
    """One line, exit code 2, and no file."""
    (home / "list.txt").write_text("no json")
    if content is not None:
        (home / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    if name == "value.json":
        (home / name).write_text(content.replace("{", '{"--model_type": "lora", ', 1))
    assert run(name) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
    assert not (home / "workflow.json").exists()


def test_the_command_never_replaces_a_folder(home, capsys):
    """A slip of the hand must not cost a folder of images, --force or not."""
    assert run("dreambooth.json", "-o", "datasets", "--force") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "is a folder" in line
    assert len(list((home / "datasets" / "dog").iterdir())) == IMAGES["dog"]
    assert run("dreambooth.json", "-o", "dreambooth.json/made.json") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "dreambooth.json/made.json: cannot write" in line


def test_a_missing_data_set_file_is_said(home, capsys):
    """The rest is imported: the user may have moved it."""
    (home / "alone.json").write_text('{"model_family": "flux", "data_backend_config": "moved.json"}')
    assert run("alone.json") == 0
    assert "data_backend_config: the file 'moved.json' was found neither here" in " ".join(
        capsys.readouterr().out.split()
    )
    assert (home / "workflow.json").exists()


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
