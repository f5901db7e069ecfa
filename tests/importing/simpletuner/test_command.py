"""The command import-config."""

import pytest
from brought_over import IMAGES, OURS, bring, run
from comfyui_rollout.__main__ import main
from comfyui_rollout.graph import load, to_prompt


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
