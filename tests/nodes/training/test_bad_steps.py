"""Steps whose loss is no number: left out, gone back from once, and then the end."""

import re

import pytest
import torch
from comfyui_rollout.data.data import plan_batch
from comfyui_rollout.hosts.host import Interrupted
from comfyui_rollout.runs.metrics_file import read_metrics
from comfyui_rollout.training.state import find_state
from comfyui_rollout.training.stream import StepError
from toys import with_loss


def test_a_loss_that_is_no_number_ends_the_run(graph, train, only_run):
    """Within a few steps, naming the first bad one."""

    def spoil(step, value):
        return value * float("nan") if step.update == 4 else value

    with pytest.raises(StepError, match=r"^node .* \(Optimizer Step\), step 4: the loss is not a finite number"):
        train(with_loss(graph(), spoil), steps=100, on_bad_step="stop")
    run = only_run()
    assert [row["loss"] is None for row in read_metrics(run.folder)[:6]] == [False] * 4 + [True] * 2
    assert run.facts["status"] == "failed"
    assert "step 4" in run.facts["message"]
    assert not (run.folder / "model").exists()


def diverging_at(update):
    return lambda step, value: value * float("nan") if step.update == update else value


def test_a_diverged_run_saves_no_model(graph, train, host, only_run):
    """Weights that are no numbers are worth nothing: no model, no checkpoint, also where a stop comes first."""
    with pytest.raises(StepError, match=r"step 2: the loss is not a finite number"):
        train(with_loss(graph(), diverging_at(2)), steps=100, checkpoint_every=2, on_bad_step="stop")
    run = only_run()
    assert [path.name for path in (run.folder / "checkpoints").iterdir()] == ["step_000002"]
    assert not (run.folder / "model").exists()
    assert (run.folder / "loss.png").is_file()


def test_a_stop_after_the_loss_diverged_saves_no_model(graph, train, host, only_run):
    """The losses are read now and then: those that nobody had read yet count too."""
    host.stop_after = 4
    with pytest.raises(Interrupted):
        train(with_loss(graph(), diverging_at(2)), steps=100, on_bad_step="stop")
    run = only_run()
    assert run.facts["status"] == "interrupted"
    assert [row["loss"] is None for row in read_metrics(run.folder)] == [False, False, True, True]
    assert not (run.folder / "model").exists()


def bad_at(*updates):
    """A loss that is no number for the second item of these steps."""

    def change(step, value):
        spoilt = torch.arange(len(value)) == 1
        return torch.where(spoilt, value * float("nan"), value) if step.update in updates else value

    return change


def test_a_bad_step_is_left_out(graph, train, caplog):
    """One NaN pixel: nothing is learnt from that step, its picture and level are named, and the run goes on."""
    run = train(with_loss(graph(), bad_at(4)), steps=12, seed=3)
    assert (run.facts["status"], run.facts["skipped"]) == ("finished", [4])
    assert all(value.isfinite().all() for value in run.weights.values())
    rows = read_metrics(run.folder)
    assert [row["step"] for row in rows if row.get("skipped")] == [4]
    assert [row["step"] for row in rows if row["loss"] is None] == [4]
    (said,) = [record.message for record in caplog.records if "left out" in record.message]
    item = plan_batch(graph().dataset.about, 4, 4, 3, "RolloutDigitsDataset")[1]
    assert re.search(rf"step 4: item {item} at timestep \d+\.\d$", said)
    assert "1 steps were left out; the log and run.json say which" in run.ui["text"]


def test_good_steps_are_as_they_were(graph, train, same_bits):
    """Looking for bad steps changes no bit of the others, with clipping and without."""
    for clip_norm in (1.0, 0.0):
        skipping, stopping = (train(graph(), clip_norm=clip_norm, on_bad_step=what) for what in ("skip", "stop"))
        assert same_bits(skipping.weights, stopping.weights)
        assert "skipped" not in read_metrics(skipping.folder)[0]


def test_many_bad_steps_go_back_once_and_then_fail(graph, train, only_run, caplog):
    """To the last good state, in case that it was an accident; with the report, for it was none."""
    bad = with_loss(graph(), bad_at(*range(5, 1000)))
    with pytest.raises(
        StepError, match=r"step 5: the loss is not a finite number; 11 steps in a row were left out"
    ) as caught:
        train(bad, steps=100, checkpoint_every=4)
    assert "item " in str(caught.value)
    run = only_run()
    assert run.facts["status"] == "failed"
    assert find_state(run.folder).step == 4
    assert len([record for record in caplog.records if "went back once" in record.message]) == 1
    assert not (run.folder / "model").exists()


def test_an_accident_that_lasted_is_got_over(graph, train, same_bits):
    """Something outside the training spoilt many steps: it goes back, and ends with the bits of an undisturbed run."""
    whole = train(graph(), steps=30, seed=5)
    calls = []

    def disturbed(step, value):
        calls.append(step.update)
        return value * float("nan") if 16 > len(calls) > 5 else value

    run = train(with_loss(graph(), disturbed), steps=30, seed=5, checkpoint_every=5)
    assert same_bits(run.weights, whole.weights)
    assert [row["step"] for row in read_metrics(run.folder)] == list(range(30))


def test_a_run_that_learnt_nothing_fails(graph, train):
    """All of its few steps were bad."""
    with pytest.raises(StepError, match=r"step 0: the loss was never a finite number; step 0: item"):
        train(with_loss(graph(), bad_at(0, 1, 2)), steps=3)
