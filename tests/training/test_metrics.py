"""Rows of metrics: all that was reported of a step is in them, and spikes of the loss are marked once."""

import pytest
import torch
from comfyui_rollout.hosts.processes import ONE
from comfyui_rollout.training.metrics import BEFORE, Metrics, Spikes
from comfyui_rollout.training.stream import Run, Step


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
