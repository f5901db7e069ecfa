"""A sweep on disk: what is missing, what is run, and where its runs are."""

import sys

import pytest
from comfyui_rollout.server.content.run_notes import read_notes, write_notes
from comfyui_rollout.sweeps.sweep import Sweep
from sweeping import WORKFLOW, left, planned, stand_in


def test_a_sweep_goes_on_with_what_is_missing(tmp_path):
    """Finished variants are not run again; failed and unstarted ones are, and more values may be added later."""
    sweep = planned(tmp_path)
    left(sweep, 0)
    left(sweep, 1, "failed")
    assert planned(tmp_path).missing() == [1, 2]
    more = planned(tmp_path, [["A.b=4"], ["A.b=1"]])
    assert more.variants == (("A.b=1",), ("A.b=2",), ("A.b=3",), ("A.b=4",))
    assert more.missing() == [1, 2, 3]


def test_the_newest_run_of_a_variant_counts(tmp_path):
    """A variant that failed and was run again is what the second run says."""
    sweep = planned(tmp_path)
    left(sweep, 0, "failed")
    second = left(sweep, 0, "finished", take=2)
    assert sweep.run_of(0) == second
    assert sweep.missing() == [1, 2]


def test_a_name_is_not_read_as_a_pattern(tmp_path):
    """Of a workflow that is called `cats [v2].json`: its runs would never be found, and done again each time."""
    sweep = Sweep.planned(tmp_path, "cats [v2]", WORKFLOW, "7", (), [["A.b=1"]])
    assert sweep.run_of(0) is None
    assert left(sweep, 0) == sweep.run_of(0)
    assert sweep.missing() == []


@pytest.mark.parametrize("other", [{"workflow": {"nodes": [1]}}, {"common": ()}])
def test_another_workflow_of_the_same_name_is_refused(tmp_path, other):
    """Its runs would not be comparable; nothing is written."""
    sweep = planned(tmp_path)
    before = (sweep.folder / "sweep.json").read_bytes()
    with pytest.raises(ValueError, match="choose another --name"):
        planned(tmp_path, **other)
    assert (sweep.folder / "sweep.json").read_bytes() == before


def test_what_is_run_is_what_a_person_would_type(tmp_path):
    """A new variant is the workflow with its settings; one with a state is resumed, with none begun again."""
    sweep = planned(tmp_path)
    command = sweep.command(1, "cuda:1")
    assert command[:5] == [sys.executable, "-m", "comfyui_rollout", "run", str(sweep.folder / "workflow.json")]
    assert command[5:11] == ["--set", "S.t=0", "--set", "A.b=2", "--set", "7.run_name=tries-002"]
    assert command[11:] == ["--output", str(tmp_path), "--device", "cuda:1", "--no-wait"]
    left(sweep, 0, "interrupted")
    assert "--resume" not in sweep.command(0, "cpu")
    run = left(sweep, 2, "interrupted", state=True)
    assert sweep.command(2, "cpu")[4:6] == ["--resume", str(run)]


def test_the_runs_of_a_sweep_are_found_by_its_name(tmp_path, monkeypatch):
    """As soon as they are there, by the server's own reading; what a person writes there stays."""
    sweep = planned(tmp_path)
    folder = tmp_path / "rollout" / "tries-002_00001"
    made = f"import pathlib, time; place = pathlib.Path({str(folder)!r}); place.mkdir(parents=True); "
    stand_in(monkeypatch, made + "(place / 'run.json').write_text('{}'); time.sleep(1.5)")
    seen = []
    monkeypatch.setattr(Sweep, "label", lambda self, number, label=Sweep.label: seen.append(label(self, number)))
    assert sweep.run(1, "cpu") == 0
    assert seen[0] is True  # while it runs
    monkeypatch.undo()
    assert read_notes(folder) == {"tags": ["tries"], "note": "A.b=2"}
    write_notes(folder, {"tags": [], "note": "the best"}, read_notes(folder))
    assert sweep.label(1)
    assert read_notes(folder) == {"tags": [], "note": "the best"}


def test_a_long_name_is_still_a_tag(tmp_path):
    """Within what the server allows."""
    sweep = Sweep.planned(tmp_path, 60 * "a", WORKFLOW, "7", (), [["A.b=" + 5000 * "1"]])
    run = tmp_path / "rollout" / f"{sweep.run_name(0)}_00001"
    run.mkdir(parents=True)
    (run / "run.json").write_text("{}")
    sweep.label(0)
    assert read_notes(run)["tags"] == [40 * "a"]
    assert len(read_notes(run)["note"]) == 4000
