"""Rows of metrics: all that was reported of a step is in them, and its time; spikes of the loss are marked once."""

import json
from types import SimpleNamespace

import pytest
import torch
from comfyui_rollout.hosts.processes import ONE
from comfyui_rollout.training import clock as clock_module
from comfyui_rollout.training import metrics as metrics_module
from comfyui_rollout.training.loop import train
from comfyui_rollout.training.metrics import BEFORE, Metrics, Spikes
from comfyui_rollout.training.stream import Run, Step, Stream
from regressions import PLAIN


class Two:
    """Two processes that report the same."""

    count = 2

    def gathered(self, value):
        return [value, value]


@pytest.mark.parametrize("processes", [ONE, Two()], ids=["alone", "two"])
def test_what_is_reported_after_the_step_is_in_its_row(processes):
    """As looks at the run do, the validation loss for one, once the step has been handed to the metrics."""
    run = Run(processes=processes)
    step, metrics = Step(run, 3), Metrics(run)
    step.report("loss", torch.tensor([1.0, 3.0]))
    step.pulls = [dict(step.numbers)]
    metrics.add(step)
    step.report("validation_loss", torch.tensor([0.5]))
    (row,) = metrics.read()
    assert {name: row[name] for name in ("step", "loss", "validation_loss")} == {
        "step": 3, "loss": 2.0, "validation_loss": 0.5,
    }  # fmt: skip


def marks(*losses, before=()):
    """The steps that are marked."""
    spikes = Spikes()
    spikes.go_on({"step": step, "loss": loss} for step, loss in enumerate(before))
    rows = [{"step": step, "loss": loss} for step, loss in enumerate(losses)]
    for row in rows:
        spikes.mark(row)
    return [row["step"] for row in rows if row.get("spike")]


def test_a_loss_that_jumps_is_marked():
    """Where a training begins to go wrong, a person looks first; noise is no jump."""
    calm = [1.0 + 0.5 * (step % 2) for step in range(60)]
    assert marks(*calm) == []
    calm[30] = 9.0
    assert marks(*calm) == [30]


def test_a_part_that_grows_with_the_ramp_is_no_spike():
    """What rollouts add comes from 0, and is no fault; only the loss that is trained on counts."""
    spikes = Spikes()
    rows = [{"step": step, "loss": 1.0, "loss_anti_drift": 0.001 * 4**step} for step in range(40)]
    for row in rows:
        spikes.mark(row)
    assert not any("spike" in row for row in rows)


def test_a_rise_that_stays_is_no_longer_marked_when_it_is_usual():
    """A new level is news only until half of the steps before have it."""
    found = marks(*[1.0] * 60, *[5.0] * 60)
    assert found == list(range(60, 60 + BEFORE // 2))


def test_steps_without_a_number_count_for_nothing():
    """A step that was left out has no loss."""
    assert marks(*[1.0] * 12, None, 9.0, None) == [13]


def test_the_first_steps_are_not_judged():
    """A loss may begin anywhere."""
    assert marks(0.1, 9.0, 0.2, 7.0) == []


def test_a_resumed_run_marks_the_same_steps():
    """It knows the losses from before."""
    losses = [1.0] * 30 + [9.0] + [1.0] * 5
    assert marks(*losses) == [30]
    assert marks(*losses[30:], before=losses[:30]) == [0]


def step_with(run, update, **numbers):
    step = Step(run, update)
    for name, value in numbers.items():
        step.report(name, value)
    return step


def test_metrics_are_rows_of_plain_numbers():
    """What was reported, whether tensor or number, in the order of the steps; each row is handed out once."""
    run = Run()
    run.clock.seconds["4"] = 3.0
    metrics = Metrics(run)
    for update in (5, 6):
        metrics.add(step_with(run, update, loss=torch.tensor([1.0, 2.0]), learning_rate=0.1, drift=torch.tensor(4)))
    rows = metrics.read()
    assert [row["step"] for row in rows] == [5, 6]
    assert [(row["loss"], row["learning_rate"], row["drift"]) for row in rows] == [(1.5, 0.1, 4.0)] * 2
    assert rows[0]["seconds"] == {"4": 1.5}
    assert metrics.read() == []


@pytest.fixture
def watch(monkeypatch):
    """Time that is moved by hand: ``watch.now += 1``."""
    hand = SimpleNamespace(now=100.0)
    for module in (metrics_module, clock_module):
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: hand.now))
    return hand


def test_speed_is_steps_per_second_on_the_wall(watch):
    """Sampling and saving between the steps are part of it; the very first step, which sets things up, is not."""
    run = Run()
    metrics, speeds = Metrics(run), []
    for update, seconds in enumerate((60, 2, 2, 4, 4, 1)):
        watch.now += seconds
        metrics.add(step_with(run, update, loss=1.0))
        if update in (0, 2, 4):
            speeds.append([row["steps_per_second"] for row in metrics.read()])
            watch.now += 8  # a round of samples
    speeds.append([row["steps_per_second"] for row in metrics.read()])
    assert speeds == [[None], [2 / 12] * 2, [2 / 16] * 2, [1 / 9]]


def test_the_speed_of_a_first_stretch_leaves_out_its_first_step(watch):
    """Ten steps are nine intervals."""
    run = Run()
    metrics = Metrics(run)
    for update in range(10):
        watch.now += 60 if update == 0 else 0.5
        metrics.add(step_with(run, update, loss=1.0))
    assert {row["steps_per_second"] for row in metrics.read()} == {2.0}


def test_making_the_model_is_no_part_of_the_seconds(regression, watch):
    """A large model takes a minute to load, which says nothing about a step."""
    _, known, _ = regression()

    def load():
        watch.now += 60
        return known.function(None)

    def work(step, model):
        watch.now += 2
        return model.network(torch.ones(2, 4)).square().mean(1)

    model = Stream(lambda step: step.keep(load), node_id="model", title="Model")
    loss = Stream(work, {"model": model}, "loss", "Loss")
    run = Run(loss, model)
    for _ in train(loss, model, PLAIN, steps=3, run=run):
        pass
    found = run.clock.read()
    assert (found["model"], found["loss"]) == (0.0, 6.0)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_is_none(value):
    """JSON has no word for it, and a browser would refuse the whole line."""
    run = Run()
    metrics = Metrics(run)
    for update in range(5):
        metrics.add(step_with(run, update, loss=torch.tensor(value if update >= 3 else 1.0)))
    rows = metrics.read()
    assert [row["loss"] for row in rows] == [1.0, 1.0, 1.0, None, None]
    json.dumps(rows, allow_nan=False)


def test_other_metrics_may_be_no_numbers():
    """A gradient norm of inf is what half precision's loss scaling expects now and then."""
    run = Run()
    metrics = Metrics(run)
    metrics.add(step_with(run, 0, loss=1.0, gradient_norm=torch.tensor(float("inf"))))
    assert metrics.read()[0]["loss"] == 1.0


def test_seconds_are_kept_by_node(regression):
    """Every node of the step, and the trainer's own parts, can be told apart."""
    loss, model, _ = regression()
    run = Run(loss, model)
    for _ in train(loss, model, PLAIN, steps=2, run=run, node_id="9"):
        pass
    assert run.clock.read().keys() == {"model", "loss", "9.backward", "9.optimizer"}
