"""Runs survive: a short version of benchmarks/reliability.py, with seeds that are written down."""

import contextlib
import itertools
import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("forks, and asks Linux for open files", allow_module_level=True)

import faults
from comfyui_rollout.runs.clean import clean
from comfyui_rollout.runs.looks import TimeBudget
from comfyui_rollout.runs.metrics_file import read_metrics
from comfyui_rollout.runs.room import NoRoom
from comfyui_rollout.server.content.runs import OwnJobs, describe_run
from comfyui_rollout.training.state import find_state
from PIL import Image

SEED = 20


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """``place()`` makes a folder in memory if there is some: what is flushed is followed, and no disk is waited for."""
    memory = Path("/dev/shm")
    if not (memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 1 << 30):
        yield lambda: tmp_path_factory.mktemp("faults")
        return
    with tempfile.TemporaryDirectory(prefix="faults-", dir=memory) as folder:
        yield lambda: Path(tempfile.mkdtemp(dir=folder))


@pytest.fixture
def tmp_path(place):
    return place()


@pytest.fixture(scope="module")
def trials(place):
    return faults.Trials(place())


@pytest.fixture(scope="module")
def stopped(place, trials):
    folder = place()
    faults.stopped_run(folder)
    return folder


@pytest.fixture(scope="module")
def commands(place):
    return faults.Commands(place(), steps=6)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.42, 0.5, 0.58, 0.66, 0.8, 0.97])
def test_a_kill_before_a_change_of_files_loses_nothing(trials, share):
    """SIGKILL between two operations on files; then the run goes on to the bits of one that nobody disturbed."""
    assert trials.kill_at_change(round(share * trials.changes)) in ("resumed", "nothing was kept yet")


@pytest.mark.parametrize(("first", "second"), [(0.5, 20), (0.93, 1), (0.93, 6), (0.93, 15)])
def test_a_kill_while_it_is_resumed_loses_nothing(trials, first, second):
    """Also where only the concluding work was left to do."""
    assert trials.kill_twice(round(first * trials.changes), second) == "resumed"


def test_a_kill_at_any_moment_loses_nothing(trials):
    generator = random.Random(SEED)
    found = [trials.kill_after(generator.uniform(0.3, 1) * trials.seconds) for _ in range(3)]
    assert [each for each in found if each.startswith("lost")] == []


@pytest.mark.parametrize("strict", [True, False], ids=["only what was flushed", "names in order"])
@pytest.mark.parametrize("share", [0.35, 0.55, 0.75, 0.98])
def test_a_power_cut_loses_nothing(trials, share, strict):
    """Of files and names that were not flushed nothing is left, or a part, or all."""
    found = trials.cut_power(round(share * trials.changes), strict, round(100 * share))
    assert found in ("resumed", "nothing was kept yet")


def test_the_power_cut_is_one(trials, monkeypatch):
    """The test of the test: without flushing, runs are lost."""
    monkeypatch.setattr("comfyui_rollout.files.whole.flush", lambda path: None)
    monkeypatch.setattr("comfyui_rollout.files.whole.flush_folder", lambda path: None)
    found = [trials.cut_power(round(share * trials.changes), True, 1) for share in (0.55, 0.75)]
    assert all(each.startswith("lost") for each in found)


@pytest.fixture(scope="module")
def ext4(place):
    """Skips where no image of a disk may be mounted."""
    folder = place()
    try:
        with faults.Ext4(folder / "disk.img", folder / "mounted"):
            pass
    except OSError as error:
        pytest.skip(f"may not mount an ext4 image: {error}")


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_power_cut_of_a_real_file_system_loses_nothing(ext4, trials, share):
    """The blocks that ext4 has written by then are all that there is, and its journal is replayed."""
    assert trials.cut_power_of_ext4(round(share * trials.changes)) in ("resumed", "nothing was kept yet")


def test_the_power_cut_of_a_real_file_system_is_one(ext4, trials, monkeypatch):
    """The test of the test: without flushing, runs are lost."""
    monkeypatch.setattr("comfyui_rollout.files.whole.flush", lambda path: None)
    monkeypatch.setattr("comfyui_rollout.files.whole.flush_folder", lambda path: None)
    assert trials.cut_power_of_ext4(round(0.75 * trials.changes)).startswith("lost")


@pytest.mark.parametrize("name", faults.TAMPERED)
def test_a_tampered_run_is_not_silently_accepted(stopped, trials, tmp_path, name):
    """It is refused in one line with the folder as it was, or the user is told, or no bit is different."""
    folder = tmp_path / "runs"
    shutil.copytree(stopped, folder)
    logging.disable(logging.WARNING)
    try:
        assert faults.tampered(folder, faults.TAMPERED[name], trials.whole) in ("refused", "said", "no difference")
    finally:
        logging.disable(logging.NOTSET)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_stops_a_run_that_goes_on_later(commands, name):
    """A cluster's notice, a closed terminal: saved, exit code 130, and resumed to the bit."""
    assert commands.signalled(getattr(signal, name), 0.5)[0] == "stopped and resumed"


@pytest.mark.parametrize("stream", [1, 2, 3], ids=["stdout", "stderr", "both"])
def test_nobody_reads_any_more(commands, stream):
    """`| head`, or a lost ssh: the run finishes, with exit code 0."""
    assert commands.deaf(stream) == "finished"


def test_a_second_ctrl_c_leaves_at_once(tmp_path):
    """Though it is in the middle of a step; the last state is whole, and no lock is left."""
    output, words = tmp_path / "output", tmp_path / "words.txt"

    def work():
        from comfyui_rollout.__main__ import main
        from comfyui_rollout.runs.looks import Progress

        after = Progress.after

        def at(look, session):
            after(look, session)
            if session.reached == 4:
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(60)

        Progress.after = at
        return main(faults.command("--set", "OptimizerStep.checkpoint_every=2", output=output, steps=100))

    begun = time.monotonic()
    assert faults.forked(work, words=words) == 130
    assert time.monotonic() - begun < 60
    run = output / "rollout" / "quickstart_digits_00001"
    assert find_state(run).step == 2
    again = faults.command("--resume", str(run), output=output, steps=5)
    assert faults.main_in_child(again, words=words) == 0, words.read_text()


def test_of_two_resumes_one_goes_on(stopped, tmp_path):
    """Several programs at once: one has the lock, and the others say so."""
    shutil.copytree(stopped, tmp_path / "runs")
    run = tmp_path / "runs" / "run_00001"
    ready, go = os.pipe()
    children = []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            code = 71
            try:
                os.read(ready, 1)
                state = find_state(run)
                try:
                    faults.train(resume=state, looks=[Slow()])
                    code = 0
                except ValueError as error:
                    code = 3 if "is being trained right now" in str(error) else 4
            finally:
                os._exit(code)
        children.append(child)
    os.write(go, b"gogo")
    codes = sorted(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)
    assert codes == [0, 3, 3, 3]
    assert len(json.loads((run / "run.json").read_text())["resumed"]) == 1


class Slow(faults.Checkpoint.__mro__[1]):
    """A look that gives the others time to come."""

    def begin(self, session):
        time.sleep(2)


def test_runs_of_one_name_have_folders_of_their_own(tmp_path):
    """Started in the same instant: names are taken by making them."""
    ready, go = os.pipe()
    children = []
    for _ in range(6):
        child = os.fork()
        if child == 0:
            code = 71
            try:
                os.read(ready, 1)
                faults.train(tmp_path / "run", steps=2)
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    os.write(go, b"gogogo")
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 6
    runs = sorted(tmp_path.glob("run_*"))
    assert [path.name for path in runs] == [f"run_0000{number}" for number in range(1, 7)]
    assert {json.loads((path / "run.json").read_text())["status"] for path in runs} == {"finished"}
    assert len({json.loads((path / "run.json").read_text())["id"] for path in runs}) == 6


@pytest.fixture
def small_disk(tmp_path):
    """A disk of one megabyte; skipped where nothing may be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("may not mount a small disk")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def fill(disk, leave):
    with contextlib.suppress(OSError), (disk / "filling").open("wb") as file:
        file.write(b"\0" * max(0, shutil.disk_usage(disk).free - leave))


class Fills(faults.Checkpoint.__mro__[1]):
    """After a step there is no room any more; ``again`` makes room."""

    def __init__(self, disk):
        self.disk = disk

    def after(self, session):
        if session.reached == 5:
            fill(self.disk, 4096)


def test_a_full_disk_is_waited_for(small_disk, trials, monkeypatch, caplog):
    """One line; as soon as there is room, it goes on, and ends with the bits of an undisturbed run."""
    looked = []

    def wait(seconds):
        looked.append(seconds)
        if len(looked) == 3:
            (small_disk / "filling").unlink()

    monkeypatch.setattr("comfyui_rollout.runs.room.time.sleep", wait)
    faults.train(small_disk / "run", looks=[Fills(small_disk)])
    assert len(looked) == 3
    (line,) = [record.message for record in caplog.records if "waiting until there is room" in record.message]
    assert line.startswith("no room for the state after step 6: it takes ")
    assert line.endswith("the state after step 3 is kept")
    found = faults.outcome(small_disk / "run_00001")
    assert (found["model"], found["status"]) == (trials.whole["model"], "finished")


def test_a_full_disk_fails_a_run_that_does_not_wait(small_disk, trials):
    """The last good state is kept, and the run goes on from it when there is room."""
    from comfyui_rollout.hosts.host import Host

    host = Host()
    host.waits_for_room = False
    with pytest.raises(NoRoom, match=r"^no room for the state after step 6: .*; the state after step 3 is kept"):
        faults.train(small_disk / "run", looks=[Fills(small_disk)], host=host)
    (small_disk / "filling").unlink()
    run = small_disk / "run_00001"
    assert find_state(run).step in (3, 6)
    faults.train(resume=find_state(run))
    assert faults.outcome(run)["model"] == trials.whole["model"]


def test_a_disk_that_is_full_from_the_start_is_seen_before(small_disk):
    """Not after hours."""
    from comfyui_rollout.hosts.host import Host

    host = Host()
    host.waits_for_room = False
    fill(small_disk, 60_000)
    with pytest.raises(NoRoom, match="no room for a state and the model"):
        faults.train(small_disk / "run", host=host)


class Shows(faults.Checkpoint.__mro__[1]):
    """A sample and a film after each step; the disk is full after the fourth and while the curve is drawn."""

    def __init__(self, disk):
        self.disk = disk

    def after(self, session):
        host, picture = session.run.host, Image.effect_noise((64, 64), 50)
        if session.reached == 4:  # between two states, those after steps 3 and 6
            fill(self.disk, 0)
        host.show("loss", "samples", session.reached, picture)
        host.frames("loss", session.reached, picture, {"step": session.reached})
        if session.reached == 5:
            (self.disk / "filling").unlink()

    def conclude(self, session):
        fill(self.disk, 0)


def test_a_disk_that_is_full_for_pictures_stops_nothing(small_disk, trials, caplog):
    """Samples, films and loss.png are left out, in a line; no half of one stays, and no bit of the model differs."""
    faults.train(small_disk / "run", looks=[Shows(small_disk)])
    run = small_disk / "run_00001"
    lines = [record.message for record in caplog.records]
    assert len([line for line in lines if line.startswith("training goes on, but not all of it")]) == 1, lines
    assert len([line for line in lines if line.startswith("the curve loss.png could not be drawn")]) == 1, lines
    samples = sorted((run / "samples").iterdir())
    assert {"loss_step_000003.png", "loss_step_000006.png"} <= {path.name for path in samples}
    for path in [*samples, *(run / "rollouts").glob("*.png")]:
        Image.open(path).load()
    assert list(run.rglob(".*-????????")) == []
    assert len(read_metrics(run)) == faults.STEPS
    assert faults.weights_of(run).keys() == faults.weights_of(trials.folder / "whole_00001").keys()
    assert faults.same_weights(run, trials.folder / "whole_00001")


@contextlib.contextmanager
def read_only(folder):
    """Nothing can be written in a folder, not even by root; skipped where nothing may be mounted."""
    for options in (["--bind", folder, folder], ["-o", "remount,ro,bind", folder]):
        if subprocess.run(["mount", *map(str, options)], capture_output=True).returncode != 0:
            subprocess.run(["umount", str(folder)], capture_output=True)
            pytest.skip("may not mount a folder read-only")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_read_only_output_folder_is_one_line(tmp_path, capsys):
    """Before anything runs, with the code for wrong input."""
    from comfyui_rollout.__main__ import main

    with read_only(tmp_path):
        assert main(faults.command(output=tmp_path / "output", steps=2)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: --output: cannot write in ")
    assert line.endswith("(Read-only file system): choose another output folder")


def test_a_read_only_run_is_not_resumed(stopped, tmp_path):
    """One line that says where and what to do; whoever only looks at the run sees it all the same."""
    shutil.copytree(stopped, tmp_path / "runs")
    run = tmp_path / "runs" / "run_00001"
    before = faults.everything_in(run)
    facts = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**facts, "status": "running"}))
    with read_only(run):
        with pytest.raises(ValueError, match=r"^resume: nothing can be written in .* \(Read-only file system\): copy "):
            faults.train(resume=find_state(run))
        assert describe_run(run, OwnJobs())["status"] in ("running", "stopped")
        assert clean(tmp_path) == []
    (run / "run.json").write_text(json.dumps(facts))
    assert faults.everything_in(run).keys() == before.keys()
    faults.train(resume=find_state(run))


def test_a_clock_that_is_set_back_changes_nothing(tmp_path, trials, monkeypatch):
    """Time budgets and states by the clock go by what has passed; nothing else asks what time it is."""
    today, asked = time.time(), itertools.count()
    monkeypatch.setattr("time.time", lambda: today - 3600.0 * next(asked))
    session = faults.train(tmp_path / "run", looks=[TimeBudget(60)])
    assert session.reached == faults.STEPS
    assert faults.outcome(tmp_path / "run_00001")["model"] == trials.whole["model"]


def test_leftovers_are_cleaned_but_not_those_of_a_run_that_runs(tmp_path):
    """`comfyui-rollout clean`: what is being written is left alone."""
    from comfyui_rollout.files.lock import held

    for name in ("dead", "alive"):
        (tmp_path / "rollout" / name / "state" / ".model-abcd1234" / "model").mkdir(parents=True)
        (tmp_path / "rollout" / name / "run.json").write_text("{}")
    (tmp_path / "loras" / ".a.safetensors-abcd1234").mkdir(parents=True)
    with held(tmp_path / "rollout" / "alive"):
        removed = clean(tmp_path)
    assert [path.parent.parent.name for path in removed] == ["dead"]
    os.utime(tmp_path / "loras" / ".a.safetensors-abcd1234", (0, 0))
    clean(tmp_path)
    assert list(tmp_path.rglob(".*-????????")) == []


def test_mutated_workflows_are_told_in_lines(tmp_path):
    """No traceback, whatever is wrong in a file."""
    generator, workflow = random.Random(SEED), json.loads(faults.QUICKSTART.read_text())
    for _ in range(25):
        code, _, words = faults.validated(faults.mutated(workflow, generator), tmp_path)
        assert code in (0, 2), words
        assert "Traceback" not in words
