"""Seconds per node."""

from types import SimpleNamespace

import pytest
import torch
from comfyui_rollout.training import clock as module
from comfyui_rollout.training.clock import Clock
from comfyui_rollout.training.stream import Run, Step, Stream


class Watch:
    """A perf_counter that is moved by hand."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(module.time, "perf_counter", lambda: self.now)


def test_times_of_one_name_add_up_and_reading_starts_anew(monkeypatch):
    """The seconds per node in the metrics are those since the last line."""
    watch, clock = Watch(monkeypatch), Clock()
    for seconds in (1.0, 2.0):
        with clock.measure("a"):
            watch.now += seconds
    assert clock.read() == {"a": 3.0}
    assert clock.read() == {}


def test_a_node_is_not_charged_for_what_it_pulls(monkeypatch):
    """ "Rollout takes 62% of the step" must not contain the data loading that came before it."""
    watch = Watch(monkeypatch)

    def wait(step, seconds, **inputs):
        watch.now += seconds

    data = Stream(wait, {"seconds": 1.0}, "data")
    rollout = Stream(wait, {"seconds": 5.0, "batch": data}, "rollout")
    loss = Stream(wait, {"seconds": 2.0, "batch": rollout, "data": data}, "loss")
    run = Run(loss)
    Step(run, 0).value(loss)
    assert run.clock.read() == {"data": 1.0, "rollout": 5.0, "loss": 2.0}


@pytest.fixture
def cuda(monkeypatch):
    """Just enough of torch.cuda; remembers on which streams events were recorded, and for which it waited."""
    recorded, waited = [], []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self, stream):
            recorded.append(stream)

        def synchronize(self):
            waited.append(self)

        def elapsed_time(self, other):
            return 250.0

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"the stream of {device}")
    return SimpleNamespace(recorded=recorded, waited=waited)


def test_on_cuda_events_are_read_only_when_asked(cuda):
    """Measuring must not make every node wait for the device."""
    clock = Clock("cuda")
    for _ in range(2):
        with clock.measure("a"):
            pass
    assert cuda.waited == []
    assert clock.read() == {"a": 0.5}
    assert len(cuda.waited) == 2


def test_events_are_recorded_where_the_work_is_done(cuda):
    """On the second GPU, the first one's stream would tell of nothing."""
    with Clock("cuda:1").measure("a"):
        pass
    assert cuda.recorded == ["the stream of cuda:1"] * 2
