"""What a run leaves behind."""

import json
from itertools import pairwise

import pytest
from comfyui_rollout.runs.run_folder import MOST_FILMS, RunFolder, most_crowded, versions
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


def test_pictures_are_kept_by_kind_node_and_step(run):
    """Names sort by time, and the ids of nodes in subgraphs (7:3) make no trouble on any system."""
    picture = Image.new("RGB", (2, 2), "red")
    sample = run.add_picture("samples", "7:3", 250, picture)
    rollout = run.add_picture("rollout", "4", 50, picture)
    assert sample.relative_to(run.folder).as_posix() == "samples/7-3_step_000250.png"
    assert rollout.relative_to(run.folder).as_posix() == "rollouts/4_step_000050.png"
    with Image.open(sample) as kept:
        assert kept.getpixel((0, 0)) == (255, 0, 0)


def films(run, node_id="4"):
    """The steps of the recorded rollouts that are kept; each is a sheet and its facts."""
    names = {path.name for path in (run.folder / "rollouts").iterdir() if path.name.startswith(f"{node_id}_")}
    kept = sorted(int(name.split("_")[2]) for name in names if name.endswith(".json"))
    assert names == {f"{node_id}_step_{step:06d}_frames.{kind}" for step in kept for kind in ("json", "png")}
    return kept


def record(run, steps, node_id="4"):
    for step in steps:
        run.add_frames(node_id, step, Image.new("RGB", (2, 2)), {"step": step})


def test_recorded_rollouts_of_a_long_run_are_thinned(run):
    """64 of them are kept, spread over the run within a factor of two, the first and the newest among them."""
    record(run, [7], node_id="14")
    record(run, range(0, 64 * 50, 50))
    assert films(run) == list(range(0, 64 * 50, 50))
    record(run, range(64 * 50, 250 * 50, 50))
    kept = films(run)
    gaps = [after - before for before, after in pairwise(kept)]
    assert len(kept) == MOST_FILMS == 64
    assert (kept[0], kept[-1]) == (0, 249 * 50)
    assert max(gaps) <= 2 * min(gaps[:-1])
    assert films(run, "14") == [7]


def test_thinning_goes_on_in_a_folder_that_was_there_before(run):
    """What is kept depends on the folder alone, so a resumed run thins like one that never stopped."""
    record(run, range(100))
    other = RunFolder.create(run.folder.parent, "run", {})
    record(other, range(70))
    record(RunFolder(other.folder), range(70, 100))
    assert films(run) == films(other)


@pytest.mark.parametrize(
    ("moments", "place"), [([0, 1, 2, 3], 1), ([0, 2, 3, 4], 2), ([0, 2, 4, 5, 9], 2), ([0, 10, 11], 1)]
)
def test_the_most_crowded_moment_goes(moments, place):
    """The one whose neighbours are closest, the oldest of several, and never the first or the last."""
    assert most_crowded(moments) == place


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
    record(run, [2, 4])
    before = (run.folder / "metrics.jsonl").read_text().splitlines()[:3]
    again = RunFolder(run.folder)
    again.go_on(3, {"steps": 9})
    assert (run.folder / "metrics.jsonl").read_text().splitlines() == before
    assert [path.name for path in (run.folder / "samples").iterdir() if "000004" in path.name] == []
    assert len(list((run.folder / "samples").iterdir())) == 2
    assert films(run) == [2]
    found = facts(run)
    assert (found["status"], found["steps"], found["seed"], found["seconds"]) == ("running", 9, 3, 2.0)
    assert [entry["step"] for entry in found["resumed"]] == [3]
    assert "message" not in found
