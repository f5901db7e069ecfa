"""The command line, as a user types it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from comfyui_rollout.__main__ import main
from safetensors import safe_open

ROOT = Path(__file__).parents[1]
QUICKSTART = ROOT / "workflows" / "quickstart_digits.json"
SHORT = ["--set", "OptimizerStep.steps=3", "--set", "NewModel.width=8", "--set", "DigitsDataset.batch_size=8"]
SHORT += ["--set", "SampleImages.steps=2", "--set", "SampleImages.count=1", "--set", "OptimizerStep.preview_every=2"]
SHORT += ["--set", "Rollout.ramp_steps=0", "--set", "Rollout.probability=1", "--set", "Rollout.max_step_offset=2"]


def run_quickstart(output, *more):
    return main(["run", str(QUICKSTART), "--output", str(output), "--device", "cpu", *SHORT, *more])


def the_run(output):
    (folder,) = (output / "rollout").iterdir()
    return folder


def facts(output):
    return json.loads((the_run(output) / "run.json").read_text())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    output = tmp_path_factory.mktemp("finished")
    assert run_quickstart(output, "--seed", "7") == 0
    return output


def test_a_run_says_nothing_of_libraries_that_nobody_asked_for(tmp_path):
    """torchao, where it is installed for quantised models, is loaded by diffusers and warns of what it lacks."""
    command = [sys.executable, "-m", "comfyui_rollout", "run", str(QUICKSTART), "--output", str(tmp_path)]
    words = subprocess.run([*command, "--device", "cpu", *SHORT], capture_output=True, text=True, check=True).stderr
    noise = [line for line in words.splitlines() if "torchao" in line or "pytree" in line or "Enum" in line]
    assert noise == []


def test_a_run_leaves_what_the_readme_says(finished):
    """Every file of the table in README.md is there and holds what it should."""
    run = the_run(finished)
    for name in (
        "workflow.json",
        "prompt.json",
        "metrics.jsonl",
        "loss.png",
        "run.json",
        "samples",
        "rollouts",
        "model",
    ):
        assert (run / name).exists(), name
    assert any((run / "samples").iterdir())
    assert any((run / "rollouts").iterdir())
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 1, 2]
    wanted = {"loss", "loss_flow", "loss_anti_drift", "learning_rate", "rollout_length", "rollout_probability"}
    assert wanted | {"steps_per_second", "seconds", "drift", "gradient_norm"} <= set(rows[0])
    assert {"status", "versions", "device", "seed", "command"} <= set(facts(finished))
    assert facts(finished)["status"] == "finished"
    assert facts(finished)["seed"] == 7


def test_the_weights_bring_the_workflow_back(finished, capsys):
    """The weights file of a run holds the graph that ran, with the values that --set and --seed gave it."""
    weights = the_run(finished) / "model" / "diffusion_pytorch_model.safetensors"
    with safe_open(weights, "pt") as file:
        metadata = file.metadata()
    assert json.loads(metadata["workflow"])["id"] == json.loads(QUICKSTART.read_text())["id"]
    capsys.readouterr()
    assert main(["convert", str(weights)]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((the_run(finished) / "prompt.json").read_text())


def test_the_same_seed_gives_the_same_weights(finished, tmp_path):
    """Bit for bit, and another seed gives others."""
    weights = Path("model", "diffusion_pytorch_model.safetensors")

    def tensors(output):
        with safe_open(the_run(output) / weights, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118

    again, other = tmp_path / "again", tmp_path / "other"
    assert run_quickstart(again, "--seed", "7") == run_quickstart(other, "--seed", "8") == 0
    first, second, third = tensors(finished), tensors(again), tensors(other)
    assert all(first[name].equal(second[name]) for name in first)
    assert not all(first[name].equal(third[name]) for name in first)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("OptimizerStep.stps=3", ["stps", "steps"]),
        ("Rolout.probability=1", ["Rolout", "Rollout"]),
        ("OptimizerStep.steps=many", ["steps", "many"]),
        ("Rollout.probability=1.5", ["probability", "1.5"]),
        ("Rollout.sampler=heun", ["sampler", "heun", "euler"]),
        ("nonsense", ["nonsense"]),
    ],
)
def test_a_wrong_override_is_one_line(override, words, tmp_path, capsys):
    """Unknown node, unknown input, wrong type, out of range: exit code 2, and nothing is written."""
    assert main(["run", str(QUICKSTART), "--output", str(tmp_path / "out"), "--set", override]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert all(word in line for word in words), line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["run", "validate", "convert"])
def test_a_seed_for_no_training_is_refused(command, tmp_path, capsys):
    """It would change nothing, and the user would believe that it did."""
    path = tmp_path / "look.json"
    dataset = {"class_type": "RolloutDigitsDataset", "inputs": {"batch_size": 4, "size": 8}}
    path.write_text(json.dumps({"1": dataset}))
    assert main([command, str(path), "--seed", "3"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--seed: the workflow has no Optimizer Step" in line


def damaged(tmp_path, change):
    workflow = json.loads(QUICKSTART.read_text())
    change(workflow)
    path = tmp_path / "damaged.json"
    path.write_text(json.dumps(workflow))
    return path


def node(workflow, kind):
    return next(node for node in workflow["nodes"] if node["type"] == kind)


def cycle(workflow):
    """Feed the loss' batch from a Preview Latents that is fed by itself."""
    rollout = node(workflow, "Rollout")
    link = next(link for link in workflow["links"] if link[3] == rollout["id"] and link[4] == 0)
    link[1] = rollout["id"]


def missing_type(workflow):
    node(workflow, "Rollout")["type"] = "RolloutOfAnotherPack"


def wrong_type(workflow):
    link = next(link for link in workflow["links"] if link[3] == node(workflow, "Rollout")["id"] and link[4] == 0)
    link[1] = node(workflow, "RolloutFlowMatchingSchedule")["id"]


def out_of_range(workflow):
    node(workflow, "RolloutOptimizerStep")["widgets_values"][0] = 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (cycle, ["cycle", "Rollout"]),
        (missing_type, ["RolloutOfAnotherPack"]),
        (wrong_type, ["batch", "ROLLOUT_SCHEDULE"]),
        (out_of_range, ["steps", "0"]),
    ],
)
def test_a_damaged_workflow_is_refused(change, words, tmp_path, capsys):
    """A cycle, a missing type, a wrong link, a value out of range: named before anything is loaded."""
    assert main(["run", str(damaged(tmp_path, change)), "--output", str(tmp_path / "out")]) == 2
    errors = capsys.readouterr().err
    assert all(word in errors for word in words), errors
    assert "Traceback" not in errors
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", ["{", "[1, 2]", '"text"', "", "\x00\xff"])
def test_a_file_that_is_no_workflow(content, tmp_path, capsys):
    """One line that names the file."""
    path = tmp_path / "broken.json"
    path.write_text(content)
    assert main(["validate", str(path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "broken.json" in line


def test_an_output_folder_that_cannot_be_written(tmp_path, capsys):
    """The node is named and the remedy said."""
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    assert run_quickstart(blocked) == 1
    errors = capsys.readouterr().err
    assert "Optimizer Step" in errors
    assert "choose another output folder" in errors


def test_a_failed_run_names_node_and_step(tmp_path, capsys):
    """A loss that is not a number ends the run with exit code 1, and run.json says why."""
    assert run_quickstart(tmp_path, "--set", "Optimizer.optimizer=sgd", "--set", "Optimizer.learning_rate=10",
                          "--set", "OptimizerStep.clip_norm=0", "--set", "Optimizer.lr_schedule=constant",
                          "--set", "OptimizerStep.steps=20") == 1  # fmt: skip
    errors = capsys.readouterr().err
    assert "Optimizer Step" in errors
    assert "learning rate" in errors
    assert facts(tmp_path)["status"] == "failed"
    assert "learning rate" in facts(tmp_path)["message"]
    assert not (the_run(tmp_path) / "model").exists()


def test_convert_prints_what_runs(capsys, tmp_path):
    """The converted file is the same graph: it validates, and converts to itself."""
    assert main(["convert", str(QUICKSTART), "--set", "OptimizerStep.steps=5"]) == 0
    printed = capsys.readouterr().out
    prompt = json.loads(printed)
    assert (
        next(each for each in prompt.values() if each["class_type"] == "RolloutOptimizerStep")["inputs"]["steps"] == 5
    )
    (tmp_path / "api.json").write_text(printed)
    assert main(["convert", str(tmp_path / "api.json")]) == 0
    assert json.loads(capsys.readouterr().out) == prompt


def test_nodes_lists_and_explains(capsys):
    """What exists, with inputs; an unknown node is exit code 2."""
    assert main(["nodes"]) == 0
    assert "RolloutOptimizerStep" in capsys.readouterr().out
    assert main(["nodes", "Optimizer Step"]) == 0
    assert "checkpoint_every (INT, default 0" in capsys.readouterr().out
    assert main(["nodes", "Nope"]) == 2


@pytest.mark.parametrize("name", ["optimizer step", "OPTIMIZER STEP", "rolloutoptimizerstep", "RolloutOptimizerStep"])
def test_nodes_are_found_in_any_case(name, capsys):
    """Nobody remembers where the capitals are."""
    assert main(["nodes", name]) == 0
    printed = capsys.readouterr().out
    main(["nodes", "Optimizer Step"])
    assert capsys.readouterr().out == printed != ""


@pytest.mark.skipif(sys.platform == "win32", reason="sends signals to a child process")
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-C", "SIGTERM"])
def test_a_stop_saves_and_exits_with_130(tmp_path, stop):
    """ctrl-C, or the end of a job's time: the step is finished, weights and metrics saved, run.json says it."""
    command = [sys.executable, "-m", "comfyui_rollout", "run", str(QUICKSTART), "--output", str(tmp_path), *SHORT]
    child = subprocess.Popen(
        [*command, "--set", "OptimizerStep.steps=100000"],
        cwd=ROOT.parent,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        text=True,
    )
    try:
        until = time.monotonic() + 180
        while not list(tmp_path.glob("rollout/*/metrics.jsonl")):
            assert child.poll() is None, child.stderr.read()
            assert time.monotonic() < until
            time.sleep(0.05)
        child.send_signal(stop)
        assert child.wait(90) == 130
    finally:
        child.kill()
        child.communicate()
    assert facts(tmp_path)["status"] == "interrupted"
    rows = (the_run(tmp_path) / "metrics.jsonl").read_text().splitlines()
    assert len(rows) == facts(tmp_path)["steps_done"]
    assert (the_run(tmp_path) / "model" / "diffusion_pytorch_model.safetensors").is_file()


def metrics_of(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in ("seconds", "steps_per_second")} for row in rows]


def test_a_run_is_resumed(finished, tmp_path, capsys):
    """By its name, with its own workflow; a longer run has the numbers of one that was long from the start."""
    output = tmp_path / "out"
    shutil.copytree(finished, output)
    resume = ["run", "--resume", the_run(output).name, "--output", str(output), "--device", "cpu"]
    assert main(resume) == 0
    assert "has done all 3 steps: only what comes after the training is done now; set" in capsys.readouterr().out
    assert main([*resume, "--set", "OptimizerStep.steps=2"]) == 1
    assert "has done 3 steps: set steps to more, to train it further" in capsys.readouterr().err
    assert main([*resume, "--set", "OptimizerStep.steps=5"]) == 0
    printed = capsys.readouterr().out
    assert "(Optimizer Step): quickstart_digits_00001 goes on after step 3 of 5: weights, adamw" in printed
    assert [entry["step"] for entry in facts(output)["resumed"]] == [3, 3]
    assert [row["step"] for row in metrics_of(the_run(output))] == [0, 1, 2, 3, 4]
    assert metrics_of(the_run(output))[:3] == metrics_of(the_run(finished))
    kept = json.loads((the_run(output) / "prompt.json").read_text())
    (trainer,) = [node["inputs"] for node in kept.values() if node["class_type"] == "RolloutOptimizerStep"]
    assert (trainer["steps"], trainer["resume"]) == (5, "")
    capsys.readouterr()
    assert main(["convert", str(the_run(output) / "workflow.json")]) == 0
    assert json.loads(capsys.readouterr().out) == kept


def test_a_run_is_resumed_by_its_folder_with_a_workflow_of_ones_choice(finished, tmp_path, monkeypatch):
    """As a shell completes it, from any folder."""
    output = tmp_path / "out"
    shutil.copytree(finished, output)
    monkeypatch.chdir(output)
    folder = str(the_run(output).relative_to(output))
    assert run_quickstart(output, "--resume", folder, "--set", "OptimizerStep.steps=4") == 0
    assert facts(output)["steps_done"] == 4


def test_a_run_goes_back_to_a_state(finished, tmp_path, capsys):
    """RUN@STEP, and no seed but its own."""
    output = tmp_path / "out"
    shutil.copytree(finished, output)
    name = the_run(output).name
    resume = ["run", "--output", str(output), "--device", "cpu", "--set", "OptimizerStep.steps=4", "--resume"]
    assert main([*resume, f"{name}@2"]) == 1
    assert "has no state after step 2; it has some after: 3" in capsys.readouterr().err
    assert main([*resume, f"{name}@3", "--seed", "9"]) == 2
    assert f"--seed 9: {name} goes on with its own seed, 7: leave out --seed" in capsys.readouterr().err
    assert main([*resume, f"{name}@3", "--seed", "7"]) == 0
    assert facts(output)["steps_done"] == 4


def test_clean_says_what_it_removed(finished, tmp_path, capsys):
    """Only what a killed program left half written."""
    output = tmp_path / "out"
    shutil.copytree(finished, output)
    before = sorted(output.rglob("*"))
    (the_run(output) / ".model-abcd1234" / "model").mkdir(parents=True)
    assert main(["clean", "--output", str(output)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.split("/")[-1] for line in printed] == [
        ".model-abcd1234",
        "out: 1 leftovers of programs that were killed",
    ]
    assert sorted(output.rglob("*")) == before


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--resume", "nothing_00001"], "--resume nothing_00001: neither"),
        ([], "name a workflow file, or a run to go on with: --resume RUN"),
    ],
)
def test_what_cannot_be_resumed_is_one_line(more, words, tmp_path, capsys):
    """No run of that name, or nothing to run at all: exit code 2, and nothing is written."""
    assert main(["run", *more, "--output", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("seed", [9011990233476201805, 2**64 - 1])
def test_seeds_of_64_bits(seed, tmp_path):
    """As ComfyUI's own nodes take them, exactly; a larger one is refused."""
    assert main(["validate", str(QUICKSTART), "--seed", str(seed)]) == 0
    assert main(["validate", str(QUICKSTART), "--seed", str(2**64)]) == 2
    output = tmp_path / "output"
    assert run_quickstart(output, "--seed", str(seed), "--set", f"SampleImages.seed={seed}") == 0
    assert facts(output)["seed"] == seed
