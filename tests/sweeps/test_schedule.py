"""The runs of a sweep, scheduled: by ourselves on devices, or by a cluster."""

import gc
import itertools
import threading
import time

import pytest
from comfyui_rollout.sweeps import schedule
from sweeping import planned, stand_in


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
