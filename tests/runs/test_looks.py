"""Looks by themselves."""

from comfyui_rollout.runs.looks import Sample, TimeBudget
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


def test_samples_are_drawn_on_the_way_and_once_at_the_end(fitted):
    """Every so many updates; the last round belongs to the end."""
    drawn = []
    samples = Stream(lambda step: drawn.append(step.update), node_id="samples")
    fitted(steps=6, looks=[Sample(samples, every=2)])
    assert drawn == [2, 4, 6]
