"""The command line, as a user types it."""

import io
import json
import logging
import math
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from comfyui_rollout import NODE_CLASS_MAPPINGS
from comfyui_rollout.__main__ import main
from comfyui_rollout._terminal import Terminal, lasting_output, warnings_told
from PIL import Image
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
    noisy = ("torchao", "pytree", "Enum", "bitsandbytes", "kernels")
    assert [line for line in words.splitlines() if any(name in line for name in noisy)] == []


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
        ("Rollout.sampler=ddim", ["sampler", "ddim", "euler"]),
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
    trainer = node(workflow, "RolloutOptimizerStep")
    trainer["widgets_values"][0] = trainer["widgets_values_named"]["steps"] = 0


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
    """One line with the remedy, before anything runs."""
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    assert run_quickstart(blocked) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: --output: cannot write in '{blocked}' (")
    assert line.endswith("choose another output folder")


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


def test_warnings_stand_in_the_terminal(monkeypatch, capsys):
    """Those of this package, each in a line like the command line's own; what is ordinary is not said."""

    def working(options):
        logging.getLogger("comfyui_rollout.server.anything").warning("the disk is nearly full")
        logging.getLogger("comfyui_rollout.server.anything").info("ordinary")
        return 0

    monkeypatch.setattr("comfyui_rollout.__main__.nodes_command", working)
    assert main(["nodes"]) == 0
    assert capsys.readouterr().err == "warning: the disk is nearly full\n"


def test_a_warning_amid_a_progress_bar_has_a_line_of_its_own(capsys):
    """It does not stand behind the bar's last number."""
    from tqdm import tqdm

    with warnings_told(), tqdm(total=2, file=sys.stderr) as bar:
        bar.update()
        logging.getLogger("comfyui_rollout.runs.anything").warning("the disk is nearly full")
    lines = [line.rpartition("\r")[2] for line in capsys.readouterr().err.splitlines()]
    assert "warning: the disk is nearly full" in lines


@pytest.mark.skipif(os.name == "nt", reason="a shell of this kind is asked")
def test_closed_streams_are_no_fault():
    """As under a service without a console; and no file gets their numbers, into which a signal's words would go."""
    command = f"{shlex.quote(sys.executable)} -m comfyui_rollout nodes Rollout"
    said = subprocess.run(f"{command} <&- >&-", shell=True, stderr=subprocess.PIPE, check=True)
    assert said.stderr == b""
    program = (
        "import os; os.close(1); from comfyui_rollout._terminal import open_missing; open_missing(); print(os.fstat(1))"
    )
    subprocess.run([sys.executable, "-c", program], check=True, stderr=subprocess.PIPE)


def test_ctrl_c_while_nothing_runs_yet_is_one_word(monkeypatch, capsys):
    """No traceback, and the exit code of a stop."""

    def stopped(options):
        raise KeyboardInterrupt

    monkeypatch.setattr("comfyui_rollout.__main__.validate_command", stopped)
    assert main(["validate", "x.json"]) == 130
    assert capsys.readouterr().err == "stopped\n"


def test_what_two_nodes_say_of_the_same_pictures_is_said_once(capsys, tmp_path):
    """A folder and its encoding, one behind the other; another folder's line stands all the same."""
    nodes = {"3": ("RolloutImageFolderDataset", {}), "4": ("RolloutEncodeDataset", {"dataset": ["3", 0]})}
    nodes["5"] = ("RolloutImageFolderDataset", {"folder": "x"})
    prompt = {node_id: {"class_type": kind, "inputs": inputs} for node_id, (kind, inputs) in nodes.items()}
    terminal = Terminal(prompt, "RolloutOptimizerStep", str, tmp_path)
    for node_id, more in (("3", []), ("4", ["latents: 8"]), ("5", [])):
        terminal("executed", {"node": node_id, "output": {"text": ["captions: 8 of 8", *more]}})
    assert capsys.readouterr().out.splitlines() == [
        "node 3 (RolloutImageFolderDataset): captions: 8 of 8",
        "node 4 (RolloutEncodeDataset): latents: 8",
        "node 5 (RolloutImageFolderDataset): captions: 8 of 8",
    ]


@pytest.mark.parametrize("steps", [0, 3])
def test_a_stop_promises_what_there_is(steps, capsys, tmp_path):
    """No run's folder before the first step, in which something would be saved."""
    terminal = Terminal({"9": {"class_type": "Trainer"}}, "Trainer", str, tmp_path)
    with terminal:
        for step in range(1, steps + 1):
            terminal("progress", {"node": "9", "value": step, "max": 10})
    assert terminal.conclude(SimpleNamespace(status="interrupted"), traceback=False) == 130
    words = "what was learnt so far is saved in the run's folder" if steps else "nothing was trained yet"
    assert capsys.readouterr().err.splitlines()[-1] == f"stopped; {words}"


def test_letters_that_the_output_lacks_end_nothing(monkeypatch):
    """As of a log file on Windows, or in the locale C: what follows is said too."""
    written = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", written)
    with lasting_output():
        print("the folder is \N{DOG}")
        print("done")
    assert written.buffer.getvalue().split() == [b"the", b"folder", b"is", b"\\U0001f415", b"done"]


def test_nodes_lists_and_explains(capsys):
    """What exists, with inputs; an unknown node is exit code 2."""
    assert main(["nodes"]) == 0
    assert "RolloutOptimizerStep" in capsys.readouterr().out
    assert main(["nodes", "Optimizer Step"]) == 0
    assert "checkpoint_every (INT, default 0" in capsys.readouterr().out
    capsys.readouterr()
    assert main(["nodes", "Nope"]) == 2
    assert capsys.readouterr().err == "error: there is no node 'Nope': `comfyui-rollout nodes` lists them\n"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("Rolout", "did you mean Rollout"),
        ("OptimizerStp", "did you mean OptimizerStep"),
        ("Image Folder", "did you mean Image Folder Dataset"),
        ("savelra", "did you mean SaveLora"),
    ],
)
def test_a_mistyped_node(name, meant, capsys):
    """The nearest names, as after --set."""
    assert main(["nodes", name]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: there is no node {name!r}: {meant}")


def test_names_of_set_work_for_nodes_too(capsys):
    """A class without its prefix is enough everywhere."""
    for name in ("ImageFolderDataset", "imagefolderdataset", "Image Folder Dataset", "RolloutImageFolderDataset"):
        assert main(["nodes", name]) == 0
        assert capsys.readouterr().out.startswith("RolloutImageFolderDataset: ")


def test_a_mistyped_input(capsys):
    assert main(["validate", str(QUICKSTART), "--set", "OptimizerStep.step=3"]) == 2
    assert "has no input 'step'; did you mean steps?" in capsys.readouterr().err


def foreign(tmp_path):
    """A workflow with twelve nodes of three classes that nobody here has."""
    workflow = json.loads(QUICKSTART.read_text(encoding="utf-8"))
    for number in range(12):
        workflow["nodes"].append({"id": 900 + number, "type": f"Gone{number % 3}", "widgets_values": [1, "x"]})
    path = tmp_path / "foreign.json"
    path.write_text(json.dumps(workflow))
    return path


def test_validate_names_all_missing_classes(tmp_path, capsys):
    """One line for each class, with its nodes."""
    assert main(["validate", str(foreign(tmp_path))]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line[: line.index(",")] for line in lines] == [f"error: 4 nodes (90{n}" for n in range(3)]
    assert all(f"'Gone{number}'" in line for number, line in enumerate(lines))


def test_validate_refuses_data_that_a_run_could_not_read(tmp_path, capsys):
    """So that `validate --data && run` does not begin what must fail."""
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "photos" / "a.png")
    (tmp_path / "photos" / "metadata.jsonl").write_text("{")
    folder = {"class_type": "RolloutImageFolderDataset", "inputs": {"folder": str(tmp_path / "photos")}}
    main(["convert", str(QUICKSTART)])
    prompt = json.loads(capsys.readouterr().out)
    data = next(key for key, node in prompt.items() if node["class_type"] == "RolloutDigitsDataset")
    defaults = {
        name: spec[1].get("default")
        for name, spec in NODE_CLASS_MAPPINGS[folder["class_type"]].INPUT_TYPES()["required"].items()
    }
    folder["inputs"] = {**defaults, **folder["inputs"]}
    (tmp_path / "x.json").write_text(json.dumps({**prompt, data: folder}))
    assert main(["validate", str(tmp_path / "x.json")]) == 0
    assert main(["validate", str(tmp_path / "x.json"), "--data"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: node {data} (Image Folder Dataset): ")
    assert line.endswith("metadata.jsonl, line 1: is not a JSON object")


def test_convert_warns_of_what_it_cannot_know(tmp_path, capsys):
    """The prompt is printed; which classes are missing, and whose values are lost, is said beside it."""
    assert main(["convert", str(foreign(tmp_path))]) == 0
    printed = capsys.readouterr()
    assert "905" in json.loads(printed.out)
    lines = printed.err.splitlines()
    assert all(line.startswith("warning: ") for line in lines)
    assert sum("its 2 values have no names and are left out" in line for line in lines) == 12
    assert sum("which no installed pack has" in line for line in lines) == 3


@pytest.mark.skipif(os.name != "posix", reason="needs a shell's pipe")
@pytest.mark.parametrize(
    "command",
    [["nodes"], ["nodes", "--markdown"], ["nodes", "OptimizerStep"], ["--help"], ["run", "--help"],
     ["convert", str(QUICKSTART)], ["validate", str(QUICKSTART)], ["validate", "nowhere.json"]],
    ids=" ".join,
)  # fmt: skip
def test_a_reader_that_has_read_enough(command):
    """``| head`` ends a command without a word, whether it printed a line or a page."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        run = subprocess.run(
            [sys.executable, "-m", "comfyui_rollout", *command], stdout=writer, stderr=subprocess.PIPE, check=False
        )
    finally:
        os.close(writer)
    assert b"Traceback" not in run.stderr
    assert b"Broken" not in run.stderr
    assert run.returncode == (2 if "nowhere.json" in command else 0)


@pytest.mark.skipif(os.name != "posix", reason="needs a shell's pipe")
def test_a_run_whose_terminal_is_gone(tmp_path):
    """Training goes on in silence, whoever listened."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "comfyui_rollout", "run", str(QUICKSTART), "--output", str(tmp_path / "output")]
    try:
        code = subprocess.run(
            [*command, "--device", "cpu", *SHORT], stdout=writer, stderr=writer, check=False
        ).returncode
    finally:
        os.close(writer)
    assert code == 0
    assert facts(tmp_path / "output")["status"] == "finished"


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
    timed = ("seconds", "steps_per_second", "machine")
    return [{name: value for name, value in row.items() if name not in timed} for row in rows]


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


@pytest.mark.parametrize("name", ["lora_sd15.json", "lora_sdxl.json", "dreambooth_rollout.json"])
def test_nothing_runs_of_a_training_that_cannot(name):
    """An empty folder is one mistake, told once; Sample Prompts does not run alone on the untrained model."""
    from comfyui_rollout import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS
    from comfyui_rollout.graph import describe, load, object_info, to_prompt, validate

    definitions = object_info(NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS)
    prompt = to_prompt(load(ROOT / "workflows" / name), definitions)
    for node in prompt.values():
        node["inputs"] |= {"folder": ""} if node["class_type"] == "RolloutImageFolderDataset" else {}
    found = validate(prompt, NODE_CLASS_MAPPINGS)
    assert found.outputs == []
    lines = describe(found, prompt)
    folders = [node for node in prompt.values() if node["class_type"] == "RolloutImageFolderDataset"]
    assert sum("input folder: name the folder" in line for line in lines) == len(folders)


def test_a_sweep_runs_each_combination_once(tmp_path, capsys):
    """From the grid to the table, in real processes; started again it finds nothing left to do."""
    fixed = ["--grid", "OptimizerStep.steps=1,2", "--name", "tries", "--output", str(tmp_path), "--device", "cpu"]
    command = ["sweep", str(QUICKSTART), *SHORT[2:], *fixed]
    assert main(command) == 0
    rows = json.loads((tmp_path / "sweeps" / "tries" / "results.json").read_text())
    assert [(row["label"], row["run"], row["status"], row["steps"]) for row in rows] == [
        ("OptimizerStep.steps=1", "tries-001_00001", "finished", 1),
        ("OptimizerStep.steps=2", "tries-002_00001", "finished", 2),
    ]
    capsys.readouterr()
    assert main(command) == 0
    assert "2 runs, 0 to do" in capsys.readouterr().out
    assert len(list((tmp_path / "rollout").iterdir())) == 2


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--grid", "Rollout.probability=0,2"], ["probability", "2"]),
        (["--grid", "Rollout.probabilty=0,1"], ["probabilty", "did you mean"]),
        (["--grid", "Rollout.probability"], ["NODE.INPUT=VALUE,VALUE"]),
        (["--name", "a/b"], ["--name 'a/b'", "holds '/'"]),
        (["--device", "gpu"], ["gpu", "choose auto"]),
    ],
)
def test_a_wrong_sweep_is_refused_before_anything_runs(more, words, tmp_path, capsys):
    """Each variant is checked first: the last of a hundred must not fail at night."""
    assert main(["sweep", str(QUICKSTART), "--output", str(tmp_path), *more]) == 2
    said = capsys.readouterr().err
    assert all(word in said for word in words), said
    assert not list(tmp_path.glob("rollout/*"))


def test_a_command_hears_how_a_run_ended(tmp_path):
    """When all nodes are done; where it fails, the run is no less finished."""
    output, heard = tmp_path / "out", tmp_path / "heard"
    command = f'printf "%s %s" "$ROLLOUT_STATUS" "$ROLLOUT_FOLDER" > "{heard}"; false'
    assert run_quickstart(output, "--notify", command) == 0
    assert heard.read_text() == f"finished {the_run(output)}"


def test_a_system_that_lacks_signals(monkeypatch):
    """Windows has no SIGHUP and no SIGQUIT; the others are heard, and given back afterwards."""
    from comfyui_rollout._terminal import Stop, stopping

    for name in ("SIGHUP", "SIGQUIT"):
        monkeypatch.delattr(signal, name, raising=False)
    before = signal.getsignal(signal.SIGTERM)
    stop = Stop()
    with stopping(stop):
        assert stop.seconds_left() == math.inf
        signal.raise_signal(signal.SIGTERM)
        assert stop.is_set()
        assert 0 < stop.seconds_left() <= 30
    assert signal.getsignal(signal.SIGTERM) == before


def test_ctrl_c_is_in_no_hurry():
    """A person waits for the model; only who says when it will end the program is believed."""
    from comfyui_rollout._terminal import Stop, stopping

    stop = Stop()
    with stopping(stop):
        signal.raise_signal(signal.SIGINT)
    assert (stop.is_set(), stop.seconds_left()) == (True, math.inf)
