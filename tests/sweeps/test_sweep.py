"""A sweep on disk, its scheduling, and what is made of its results: on run folders as runs leave them."""

import gc
import itertools
import json
import sys
import threading
import time

import pytest
from comfyui_rollout.server.content.run_notes import read_notes, write_notes
from comfyui_rollout.sweeps import schedule
from comfyui_rollout.sweeps.outcome import conclude, outcomes, ranked
from comfyui_rollout.sweeps.sweep import Sweep
from PIL import Image

WORKFLOW = {"nodes": [], "links": []}
GRID = [["A.b=1"], ["A.b=2"], ["A.b=3"]]


def planned(output, chosen=GRID, workflow=WORKFLOW, common=("S.t=0",)):
    return Sweep.planned(output, "tries", workflow, "7", common, chosen)


def left(sweep, number, status="finished", losses=(3.0, 2.0), take=1, state=False, **more):
    """The folder that a run of this variant would leave."""
    run = sweep.output / "rollout" / f"{sweep.run_name(number)}_{take:05d}"
    (run / "samples").mkdir(parents=True)
    (run / "run.json").write_text(json.dumps({"status": status, "seconds": 4.2}))
    rows = [{"step": step, "loss": loss, **more} for step, loss in enumerate(losses)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for step in (1, 2):
        Image.new("RGB", (40, 30), (10 * number, 0, 100 * step)).save(run / "samples" / f"9_step_{step:06d}.png")
    if state:
        (run / "state").mkdir()
    return run


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


def stand_in(monkeypatch, code):
    """A short program in place of the training; it writes the name of its run into its log."""
    program = [sys.executable, "-c", code]
    monkeypatch.setattr(Sweep, "command", lambda self, number, device: [*program, self.run_name(number), device])


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


def test_one_run_at_a_time_on_each_device(tmp_path, monkeypatch):
    """Two devices are both used, and neither by two at once."""
    stand_in(
        monkeypatch, "import sys, time; print(sys.argv[2], time.time()); time.sleep(.2); print('end', time.time())"
    )
    sweep = planned(tmp_path, [[f"A.b={value}"] for value in range(5)])
    ended = list(schedule.on_this_machine(sweep, range(5), ["one", "two"], threading.Event()))
    assert sorted(ended) == [(number, 0) for number in range(5)]
    spans = {"one": [], "two": []}
    for number in range(5):
        (device, begun), (_, end) = (line.split() for line in log_of(sweep, number).splitlines())
        spans[device].append((float(begun), float(end)))
    for each in spans.values():
        assert each
        each.sort()
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(each))


def log_of(sweep, number):
    return (sweep.folder / "jobs" / f"{sweep.run_name(number)}.log").read_text()


def test_a_stopped_sweep_tells_its_runs_and_begins_none(tmp_path, monkeypatch):
    """The running one hears of it once, and may save what it has; its exit code is passed on."""
    stand_in(
        monkeypatch,
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('saved'), sys.exit(130)))\n"
        "print('begun', flush=True)\ntime.sleep(60)",
    )
    sweep, stop = planned(tmp_path), threading.Event()

    def stop_when_begun():
        log = sweep.folder / "jobs" / "tries-001.log"
        while not log.is_file() or "begun" not in log.read_text():
            time.sleep(0.05)
        stop.set()

    threading.Thread(target=stop_when_begun).start()
    assert list(schedule.on_this_machine(sweep, range(3), ["cpu"], stop)) == [(0, 130)]
    assert log_of(sweep, 0).split() == ["begun", "saved"]
    assert not (sweep.folder / "jobs" / "tries-002.log").exists()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # submitit leaves its log files open
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_submitit_runs_variants_and_says_which_failed(tmp_path, monkeypatch):
    """Its own executor for tests, in this process: the same calls as on SLURM."""
    pytest.importorskip("submitit")
    stand_in(monkeypatch, "import sys; sys.exit(3 * sys.argv[1].endswith('002'))")
    said = []
    ended = list(schedule.on_a_cluster(planned(tmp_path), [0, 1], "debug", {"timeout_min": 5}, say=said.append))
    assert ended == [(0, 0), (1, 3)]
    assert said[0].startswith("2 jobs submitted")
    gc.collect()  # what it left open is to be noticed here, and not in somebody else's test


def test_a_job_that_is_taken_away_is_put_back():
    """What submitit calls before the cluster's time is up: the very same work."""
    submission = pytest.importorskip("submitit.helpers")
    work = schedule.Work(sweep=None, number=3, device="cuda")
    again = work.checkpoint()
    assert isinstance(again, submission.DelayedSubmission)
    assert again.function is work


def test_wrong_cluster_settings_are_one_line(tmp_path):
    """Those that submitit does not know."""
    pytest.importorskip("submitit")
    with pytest.raises(ValueError, match=r"^--cluster local: .*gpu_count"):
        list(schedule.on_a_cluster(planned(tmp_path), [0], "local", {"gpu_count": 2}))


def test_the_best_comes_first(tmp_path):
    """By the training loss, and by the validation loss where every run has one; what never ran comes last."""
    sweep = planned(tmp_path)
    left(sweep, 0, losses=[3.0] * 20)
    left(sweep, 1, losses=[3.0] * 18 + [1.0, 1.0])
    assert [each.number for each in ranked(outcomes(sweep))] == [1, 0, 2]
    assert outcomes(sweep)[1].ends["loss"] == 1.0
    left(sweep, 0, losses=[3.0] * 20, take=2, validation_loss=0.5)
    left(sweep, 1, losses=[1.0] * 20, take=2, validation_loss=0.7)
    assert [each.number for each in ranked(outcomes(sweep))] == [0, 1, 2]


def test_what_came_of_it_is_written(tmp_path):
    """A table, the curves and the newest samples, also while some variants wait."""
    sweep = planned(tmp_path)
    left(sweep, 0)
    left(sweep, 1, losses=(2.0, 1.0))
    table = conclude(sweep)
    lines = table.splitlines()
    assert [line.split()[1] for line in lines[:4]] == ["settings", "A.b=2", "A.b=1", "A.b=3"]
    assert lines[3].split() == ["(3)", "A.b=3", "waiting", "0"]
    assert lines[4].startswith("sorted by the training loss")
    assert (sweep.folder / "table.txt").read_text().strip() == table
    rows = json.loads((sweep.folder / "results.json").read_text())
    assert rows[1]["ends"] == {"loss": 1.0}
    with Image.open(sweep.folder / "samples.png") as samples:
        colours = {colour for _, colour in samples.getcolors(1 << 16)}
    assert {(0, 0, 200), (10, 0, 200)} <= colours
    assert not {(0, 0, 100), (10, 0, 100)} & colours
    with Image.open(sweep.folder / "curves.png") as curves:
        assert curves.width == 900


def test_settings_without_effect_are_told(tmp_path):
    """Such as a probability beside a ramp, which has its own: the same curve twice is hard to see in a picture."""
    sweep = planned(tmp_path)
    for number in range(3):
        left(sweep, number, losses=(3.0, 2.0 + number // 2), validation_loss=0.5)
    assert conclude(sweep).splitlines()[4:] == [
        "the same losses to the last digit, so what differs between them had no effect: A.b=1; A.b=2"
    ]


def test_nothing_to_show_is_no_error(tmp_path):
    """Before the first run."""
    assert "waiting" in conclude(planned(tmp_path))
