"""When and how a state is kept: by the clock beside the training, and in time where the end is near."""

import math
import sys
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("the trainings of these tests fork elsewhere", allow_module_level=True)

import faults
import torch
from comfyui_rollout.hosts.host import Host, Interrupted
from comfyui_rollout.runs import checkpoint, notice
from comfyui_rollout.runs.looks import Checkpoint
from comfyui_rollout.runs.session import Look
from comfyui_rollout.training.state import find_state
from safetensors.torch import load_file


class Stopped(Host):
    """Stops the run after some steps, with so many seconds left."""

    def __init__(self, seconds, after=5):
        self.seconds, self.asked, self.limit = seconds, 0, after

    def seconds_left(self):
        return self.seconds if self.asked > self.limit else math.inf

    def check_interrupted(self):
        self.asked += 1
        if self.asked > self.limit:
            raise Interrupted("stopped")


def stopped(tmp_path, host):
    with pytest.raises(Interrupted):
        faults.train(tmp_path / "run", host=host)
    return tmp_path / "run_00001"


@pytest.fixture
def undisturbed(tmp_path):
    faults.train(tmp_path / "whole")
    return faults.outcome(tmp_path / "whole_00001")


def test_where_the_end_is_near_the_state_alone_is_written(tmp_path, undisturbed, caplog):
    """Once, with the time that it took in the log; the run goes on from it to the bit, and has its model then."""
    run = stopped(tmp_path, Stopped(seconds=notice.SPARE))
    assert find_state(run).step == 5
    assert not (run / "model").exists()
    (took, model) = caplog.messages
    assert took.startswith("the state after step 5 was written in ")
    assert model == "the end is near, so the model is not written: what was learnt is in the state"
    faults.train(resume=find_state(run))
    assert faults.outcome(run) == undisturbed


@pytest.mark.parametrize("seconds", [30.0, math.inf], ids=["a cluster's notice", "ctrl-C"])
def test_where_there_is_time_the_model_is_written_too(tmp_path, seconds):
    """A small one always is."""
    run = stopped(tmp_path, Stopped(seconds))
    assert find_state(run).step == 5
    assert (run / "model").is_dir()


def test_a_large_model_is_not_written_within_the_notice(tmp_path, monkeypatch):
    """By how fast the state was written: here, so that the model would take longer than a minute."""
    write = Checkpoint._write

    def slowly(look, *given):
        write(look, *given)
        look.speed = 1.0

    monkeypatch.setattr(Checkpoint, "_write", slowly)
    assert not (stopped(tmp_path, Stopped(30.0)) / "model").exists()
    assert (stopped(tmp_path / "later", Stopped(math.inf)) / "model").exists()


def test_a_state_by_the_clock_is_written_beside_the_training(tmp_path, monkeypatch, undisturbed):
    """Of a copy: what is trained meanwhile is not in it."""
    saved = eagerly(monkeypatch)
    faults.train(tmp_path / "run")
    assert {name.partition("_")[0] for _, name in saved} >= {"rollout-state", "MainThread"}
    assert faults.outcome(tmp_path / "run_00001") == undisturbed


def test_without_memory_for_a_copy_the_training_waits(tmp_path, monkeypatch, undisturbed):
    """The state is written from the trainer's own memory, and is the same to the bit."""
    monkeypatch.setattr(checkpoint, "memory_left", lambda: 0)
    saved = eagerly(monkeypatch)
    faults.train(tmp_path / "run")
    assert len(saved) > faults.STEPS // faults.EVERY
    assert {name for _, name in saved} == {"MainThread"}
    assert faults.outcome(tmp_path / "run_00001") == undisturbed


def eagerly(monkeypatch):
    """States by the clock come at each step; returns the steps and threads in which they are written."""
    import threading

    saved, save = [], checkpoint.Snapshot.save

    def noted(shot, *given):
        saved.append((shot.facts.step, threading.current_thread().name))
        return save(shot, *given)

    monkeypatch.setattr(checkpoint.Snapshot, "save", noted)
    monkeypatch.setattr(Checkpoint, "_time_is_up", lambda look, session: True)
    return saved


def test_how_long_a_large_state_takes_is_told_at_the_start(tmp_path, monkeypatch, caplog):
    """As a warning where it is longer than a cluster's notice; a small one is not even measured."""
    monkeypatch.setattr(notice, "PROBE", 1 << 12)
    notice.tell_how_long(notice.LARGE - 1, tmp_path)
    assert caplog.messages == []
    monkeypatch.setattr(notice, "seconds_for", lambda size, folder: 62.0)
    notice.tell_how_long(31_200_000_000, tmp_path)
    (line,) = caplog.messages
    assert line.startswith("a state is 31.2 GB and takes about 62 s here, more than the 30 s that clusters give")


def test_the_time_is_measured_by_writing(tmp_path, monkeypatch):
    """In the run's own folder, which is as it was then."""
    monkeypatch.setattr(notice, "PROBE", 1 << 16)
    assert 0 < notice.seconds_for(1 << 20, tmp_path) < 60
    assert list(tmp_path.iterdir()) == []


class Ties(Look):
    """After the first step two of a node's tensors are the same memory, as a new chain's are."""

    def after(self, session):
        both = torch.arange(6.0)
        for value in session.run._kept.values():
            if isinstance(value, faults.Memory):
                value.state_dict = {"total": both[:3], "same": both[:3], "rest": both[3:], "words": "kept"}.copy


def test_memory_that_is_shared_is_written_twice(tmp_path):
    """A file of tensors knows no sharing; the state is written from the trainer's own memory."""
    faults.train(tmp_path / "run", steps=3, looks=[Ties()])
    kept = find_state(tmp_path / "run_00001")
    assert kept.step == 3
    from safetensors.torch import load_file

    tensors = load_file(kept.path)
    assert tensors["kept.loss.same"].tolist() == tensors["kept.loss.total"].tolist() == [0, 1, 2]
    assert tensors["kept.loss.rest"].tolist() == [3, 4, 5]


def test_the_model_that_is_saved_has_the_averaged_weights(fitted, tmp_path):
    """And the state the live ones, from which the training goes on."""

    class Saved(torch.nn.Linear):
        def save_config(self, folder):
            (Path(folder) / "config.json").write_text("{}")

    session = fitted(Saved(4, 3), steps=4, folder=tmp_path / "run", ema_decay=0.5)
    (path,) = (session.folder.folder / "model").glob("*.safetensors")
    model, state = load_file(path), load_file(find_state(session.folder.folder).path)
    averages = session.run.averaged_weights.shadow_params
    for (name, live), average in zip(session.model.network.named_parameters(), averages, strict=True):
        assert torch.equal(model[name], average)
        assert torch.equal(state[f"weights.{name}"], live)
        assert not torch.equal(average, live)
