"""Looks by themselves."""

from itertools import count

import pytest
from comfyui_rollout.data.data import Digits
from comfyui_rollout.runs.looks import Checkpoint, Sample, TimeBudget, Validate
from comfyui_rollout.runs.session import Look
from comfyui_rollout.training.state import find_state
from comfyui_rollout.training.stream import Stream
from told import Told


def test_a_time_budget_ends_the_run_as_finished(fitted, monkeypatch):
    """It comes to its end as if so many steps had been meant: samples are drawn, looks finish."""
    now = iter(range(0, 1000, 30))
    monkeypatch.setattr("comfyui_rollout.runs.looks.time.monotonic", lambda: next(now))
    told = Told()
    session = fitted(steps=1000, looks=[TimeBudget(minutes=2), told])
    assert session.reached < 10
    assert told.calls[-2:] == [("finish", session.reached), ("conclude", session.reached)]


def test_a_time_budget_leaves_the_end_that_others_have_set(fitted):
    """Whichever of the two stands first."""

    class Three(Look):
        early = True

        def after(self, session):
            session.enough |= session.reached == 3

    assert fitted(steps=9, looks=[Three(), TimeBudget(60)]).reached == 3
    assert fitted(steps=9, looks=[TimeBudget(60), Three()]).reached == 3


def test_the_same_looks_serve_several_runs(fitted, monkeypatch, tmp_path):
    """As where learning rates are tried in a loop: each has its own time, and keeps its own state."""
    times = count(0, 60)
    monkeypatch.setattr("comfyui_rollout.runs.looks.time.monotonic", lambda: next(times))
    looks = [TimeBudget(minutes=2), Checkpoint()]
    for _ in range(2):
        session = fitted(steps=1000, looks=looks, folder=tmp_path / "line")
        assert session.reached > 1
        assert find_state(session.folder.folder).step == session.reached


def test_a_validation_without_a_schedule_says_so(fitted):
    """A loss from plain Python may have its schedule elsewhere."""
    with pytest.raises(ValueError, match="give Validate one"):
        fitted(steps=2, looks=[Validate(Digits(), 4, 1)])


def test_samples_are_drawn_on_the_way_and_once_at_the_end(fitted):
    """Every so many updates; the last round belongs to the end."""
    drawn = []
    samples = Stream(lambda step: drawn.append(step.update), node_id="samples")
    fitted(steps=6, looks=[Sample(samples, every=2)])
    assert drawn == [2, 4, 6]
