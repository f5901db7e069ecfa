"""What a run leaves behind."""

import json

import pytest
from comfyui_rollout.runs.run_folder import RunFolder, versions
from PIL import Image


@pytest.fixture
def run(tmp_path):
    return RunFolder.create(tmp_path / "output" / "rollout", "run", {"seed": 3})


def facts(run):
    return json.loads((run.folder / "run.json").read_text())


def test_a_new_run_says_that_it_is_running(run):
    """A folder found after a power cut tells that its run did not finish, and how it was started."""
    found = facts(run)
    assert (found["status"], found["seed"]) == ("running", 3)
    assert found["started"][:2] == "20"
    assert isinstance(found["command"], list)


def test_facts_are_added(run):
    """Later facts join the earlier ones."""
    run.update(status="finished", seconds=1.5)
    found = facts(run)
    assert (found["status"], found["seconds"], found["seed"]) == ("finished", 1.5, 3)


def test_runs_are_numbered(tmp_path):
    """The same workflow run twice leaves two folders."""
    names = [RunFolder.create(tmp_path, "run", {}).folder.name for _ in range(2)]
    assert names == ["run_00001", "run_00002"]


def test_an_unwritable_output_folder_is_one_clear_line(tmp_path):
    """A file in the folder's place, as a full or read-only disk would: said before anything is loaded."""
    (tmp_path / "output").write_text("a file")
    with pytest.raises(ValueError, match=r"^cannot write in '.*output/rollout' \(.+\): choose another output folder$"):
        RunFolder.create(tmp_path / "output" / "rollout", "run", {})
    assert [path.name for path in tmp_path.iterdir()] == ["output"]


def test_versions_are_those_of_what_the_numbers_depend_on():
    """Another torch gives other bits: the run says which one it was."""
    import torch

    found = versions()
    assert found["torch"] == torch.__version__.split("+")[0] or found["torch"] == torch.__version__
    assert {"python", "diffusers", "safetensors", "numpy"} <= found.keys()


def test_only_samples_and_rollouts_are_kept(run):
    """Previews are for the eyes; the folder holds what is worth opening later."""
    assert run.wants("samples")
    assert run.wants("rollout")
    assert not run.wants("noisy")


def test_the_curve_shows_the_loss_and_its_parts(run):
    """loss.png grows by a panel for each part."""
    assert run.plot() is None
    run.add_metrics([{"step": 0, "loss": 1.0, "learning_rate": 0.1}])
    with Image.open(run.plot()) as one:
        height = one.height
    run.add_metrics([{"step": 1, "loss": 1.0, "loss_anti_drift": 0.1}])
    with Image.open(run.plot()) as two:
        assert two.height > height


def test_json_can_be_read_back(run):
    """The workflow is kept as it was."""
    run.write_json("workflow.json", {"nodes": ["é"]})
    assert json.loads((run.folder / "workflow.json").read_text(encoding="utf-8")) == {"nodes": ["é"]}


def test_a_folder_is_taken_up_where_its_state_is(run):
    """Lines and pictures of later steps go, also a line that was cut short; the facts say when it went on."""
    run.update(status="failed", message="boom", seconds=2.0, steps=5)
    run.add_metrics([{"step": step, "loss": 0.1 * step} for step in range(5)])
    with (run.folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "lo')
    for step in (1, 3, 4):
        run.add_picture("samples", "8", step, Image.new("RGB", (2, 2)))
    for step in (2, 4):
        run.add_frames("4", step, Image.new("RGB", (2, 2)), {"step": step})
    before = (run.folder / "metrics.jsonl").read_text().splitlines()[:3]
    again = RunFolder(run.folder)
    again.go_on(3, {"steps": 9})
    assert (run.folder / "metrics.jsonl").read_text().splitlines() == before
    assert [path.name for path in (run.folder / "samples").iterdir() if "000004" in path.name] == []
    assert len(list((run.folder / "samples").iterdir())) == 2
    films = {path.name for path in (run.folder / "rollouts").iterdir()}
    assert films == {"4_step_000002_frames.png", "4_step_000002_frames.json"}
    found = facts(run)
    assert (found["status"], found["steps"], found["seed"], found["seconds"]) == ("running", 9, 3, 2.0)
    assert [entry["step"] for entry in found["resumed"]] == [3]
    assert "message" not in found
