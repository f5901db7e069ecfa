"""Configuration files as people have them: JSON, TOML, env, spelt anyhow; and wrong ones."""

import json
import re
from pathlib import Path

import pytest
from brought_over import ROLLOUTS, inputs, run, small
from comfyui_rollout.importing.simpletuner import Files, import_config, read_files


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
        "# it's a comment\nexport MODEL_FAMILY='flux'; export MODEL_TYPE=lora;  # end\nBATCH=2\n"
        'TRAIN_BATCH_SIZE=${BATCH}\nMAX_NUM_STEPS="7"\nTRAINER_EXTRA_ARGS="--lora_rank=8"\n'
        'TRAINER_EXTRA_ARGS+=" --push_to_hub"\n'
    )
    for name in ("config.toml", "config.env"):
        assert import_config(read_files(home / name)).prompt == expected, name
    (home / "long.env").write_text(
        "MODEL_FAMILY=flux\nMODEL_TYPE=lora\nTRAIN_BATCH_SIZE=2\nMAX_NUM_STEPS=7\n"
        'TRAINER_EXTRA_ARGS="--push_to_hub \\\n    --lora_rank 8"\n'
    )
    assert import_config(read_files(home / "long.env")).prompt == expected
    (home / "dated.toml").write_text("begun = 2026-01-02\n")
    assert json.dumps(import_config(read_files(home / "dated.toml")).kept)
    (home / "bad.toml").write_text("a = inf")
    with pytest.raises(ValueError, match=r"bad\.toml: is not TOML: inf is not a number"):
        read_files(home / "bad.toml")
    (home / "bad.toml").write_text("a = = 1")
    with pytest.raises(ValueError, match=r"bad\.toml: is not TOML"):
        read_files(home / "bad.toml")
    for text, words in (("\nA='x\n", ", line 2"), ('TRAINER_EXTRA_ARGS="a\'s"', ": TRAINER_EXTRA_ARGS")):
        (home / "bad.env").write_text(text)
        with pytest.raises(ValueError, match=rf"bad\.env{words}: No closing quotation"):
            read_files(home / "bad.env")


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


def test_a_missing_data_set_file_is_said(home, capsys):
    """The rest is imported: the user may have moved it."""
    (home / "alone.json").write_text('{"model_family": "flux", "data_backend_config": "moved.json"}')
    assert run("alone.json") == 0
    assert "data_backend_config: the file 'moved.json' was found neither here" in " ".join(
        capsys.readouterr().out.split()
    )
    assert (home / "workflow.json").exists()
