"""The table of keys: each is accounted for, read, documented, and goes where it says."""

import json
import re
from pathlib import Path

import pytest
from brought_over import CONFIGS, ROOT, small
from comfyui_rollout import NODE_CLASS_MAPPINGS
from comfyui_rollout.importing.simpletuner import Files, import_config, key_table, read_files
from comfyui_rollout.importing.simpletuner.changes import CHANGES
from comfyui_rollout.importing.simpletuner.table import BACKEND, CAPTION_SHUFFLE, CONFIG, LYCORIS


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
