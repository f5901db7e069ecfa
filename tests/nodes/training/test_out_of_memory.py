"""A batch that is too large for the device is computed in parts, and what is learnt is the same."""

import itertools

import pytest
import torch
from comfyui_rollout import nodes
from comfyui_rollout.runs.metrics_file import read_metrics
from comfyui_rollout.training.stream import StepError

EVERY = {"max_step_offset": 2, "probability": 1.0, "step_size": 50.0}


def hungry(monkeypatch, most):
    """Make the training forward fail for more items than ``most``."""
    from comfyui_rollout.nodes.rollouts import loss

    real = loss.predict

    def predict(model, batch):
        if len(batch.x) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return real(model, batch)

    monkeypatch.setattr(loss, "predict", predict)


@pytest.mark.parametrize("accumulation", [1, 3])
def test_a_batch_that_is_too_large_is_halved(graph, wire, train, monkeypatch, caplog, accumulation):
    """As often as needed; items, noise and rollouts are those of the whole batch, and so is what is learnt."""
    options = {"steps": 4, "accumulation": accumulation, "optimizer": wire(nodes.Optimizer, optimizer="sgd")}
    whole = train(graph(rollout=EVERY), **options)
    hungry(monkeypatch, most=1)
    run = train(graph(rollout=EVERY), **options, on_out_of_memory="halve")
    for name, value in run.weights.items():
        torch.testing.assert_close(value, whole.weights[name], rtol=1e-4, atol=1e-6)
    for row, other in zip(read_metrics(run.folder), read_metrics(whole.folder), strict=True):
        assert row["loss"] == pytest.approx(other["loss"], rel=1e-4)
    ours = [record.message for record in caplog.records if record.name.startswith("comfyui_rollout")]
    assert ours == [
        f"step 0: out of memory; from now on the loss of a batch is computed in {parts} parts" for parts in (2, 4)
    ]


CHAINS = {**EVERY, "rollout": "persistent", "probability": 0.75}
TRAJECTORY = {"target": "trajectory", "reference_sampler": "euler"}


@pytest.mark.parametrize("late", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize(
    ("rollout", "loss_inputs"),
    [
        (CHAINS, {}),
        (CHAINS, TRAJECTORY),
        ({**CHAINS, "sampler": "dpm"}, {**TRAJECTORY, "target_sampler": "rollout"}),
        ({**EVERY, "sampler": "unipc"}, {**TRAJECTORY, "target_sampler": "rollout"}),
    ],
    ids=["persistent", "fine paths", "own sampler", "own sampler, fresh"],
)
def test_halving_goes_with_whatever_goes_on_from_step_to_step(
    graph, wire, train, monkeypatch, rollout, loss_inputs, late
):
    """Persistent rollouts hear of all parts, and solvers have their memory of each; wherever the memory ran out."""
    options = {"steps": 6, "optimizer": wire(nodes.Optimizer, optimizer="sgd")}
    wired = graph(rollout=rollout, loss_inputs=loss_inputs)
    whole = train(wired, **options)
    if late:
        hungry_behind(monkeypatch, most=1)
    else:
        hungry(monkeypatch, most=1)
    run = train(wired, **options, on_out_of_memory="halve")
    for row, other in zip(read_metrics(run.folder), read_metrics(whole.folder), strict=True):
        assert row["loss"] == pytest.approx(other["loss"], rel=1e-4)
    for name, value in run.weights.items():
        torch.testing.assert_close(value, whole.weights[name], rtol=1e-4, atol=1e-6)


def test_halving_goes_with_batches_of_several_sizes(graph, wire, train, monkeypatch):
    """With copies beside them: a later batch has fewer items than an earlier one had parts."""
    options = {"steps": 8, "optimizer": wire(nodes.Optimizer, optimizer="sgd")}
    wired = graph(rollout={**EVERY, "probability": 0.2, "keep_base": True})
    whole = train(wired, **options)
    hungry(monkeypatch, most=1)
    run = train(wired, **options, on_out_of_memory="halve")
    for name, value in run.weights.items():
        torch.testing.assert_close(value, whole.weights[name], rtol=1e-4, atol=1e-6)


def hungry_rollouts(monkeypatch, fails):
    """Make forwards without gradient fail where ``fails(number)``, counted from 1, says so."""
    from comfyui_rollout.models.families import UNet

    real, numbers = UNet.__call__, itertools.count(1)

    def call(self, *told):
        if not torch.is_grad_enabled() and fails(next(numbers)):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return real(self, *told)

    monkeypatch.setattr(UNet, "__call__", call)


def test_chains_go_on_where_the_memory_ran_out_in_their_own_node(graph, wire, train, monkeypatch):
    """The step is made once more: chains that were seated for it wait for its loss, and are no older by it."""
    options = {"steps": 6, "optimizer": wire(nodes.Optimizer, optimizer="sgd"), "on_out_of_memory": "halve"}
    wired = graph(rollout=CHAINS, loss=nodes.ReflexFlowLoss)  # it wants a forward of the chains in the Rollout node
    whole = train(wired, **options)
    hungry_rollouts(monkeypatch, lambda number: number == 2)
    run = train(wired, **options)
    for name, value in run.weights.items():
        torch.testing.assert_close(value, whole.weights[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("rollout", [EVERY, {**CHAINS, "sampler": "heun"}], ids=["fresh", "persistent"])
def test_rollouts_that_never_fit_say_what_to_change(graph, train, monkeypatch, one_line, rollout):
    """A smaller part of the loss does not help them: the same advice, not the allocator's own words."""
    hungry_rollouts(monkeypatch, lambda number: True)
    with pytest.raises(StepError, match=r"step [01]: the device's memory is too small for this step") as caught:
        train(graph(rollout=rollout, loss=nodes.ReflexFlowLoss), on_out_of_memory="halve")
    assert "batch_size 4 -> 2 in Digits Dataset" in one_line(caught)


def test_halving_changes_no_draw_of_the_loss(graph, wire, train, monkeypatch):
    """DEFAR draws how far each item drifts: in parts, every item has the draw that it has in the whole batch."""
    from comfyui_rollout.diffusion import reflexflow

    options = {"steps": 3, "optimizer": wire(nodes.Optimizer, optimizer="sgd")}
    wired = graph(loss=nodes.ReflexFlowLoss, loss_inputs={"objective": "defar"})
    whole = train(wired, **options)
    real = reflexflow.defar

    def defar(model, batch, **settings):
        if len(batch.x) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return real(model, batch, **settings)

    monkeypatch.setattr(reflexflow, "defar", defar)
    run = train(wired, **options, on_out_of_memory="halve")
    for row, other in zip(read_metrics(run.folder), read_metrics(whole.folder), strict=True):
        assert row["loss"] == pytest.approx(other["loss"], rel=1e-4)
    for name, value in run.weights.items():
        torch.testing.assert_close(value, whole.weights[name], rtol=1e-4, atol=1e-6)


def hungry_behind(monkeypatch, most):
    """As :func:`hungry`, when the forward is over and who listens has heard its answer."""
    from comfyui_rollout.nodes.rollouts import loss

    real = loss.predict

    def predict(model, batch):
        output = real(model, batch)
        if len(batch.x) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return output

    monkeypatch.setattr(loss, "predict", predict)


@pytest.mark.parametrize("choice", ["stop", "halve"])
def test_out_of_memory_says_what_to_change(graph, train, monkeypatch, choice, one_line):
    """What was being computed, which widgets, and what each saves; also where even one item is too much."""
    hungry(monkeypatch, most=0)
    words = r"node RolloutDiffusionLoss \(Diffusion Loss\), step 0: the device's memory is too small for this step"
    with pytest.raises(StepError, match=words) as caught:
        train(graph(), on_out_of_memory=choice)
    for widget in ("batch_size 4 -> 2 in Digits Dataset", "accumulation 1 -> 2", "precision bf16", "size"):
        assert widget in one_line(caught)
