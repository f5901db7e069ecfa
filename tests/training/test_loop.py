"""The training loop from plain Python: to the bit, and when it ends early."""

from types import SimpleNamespace

import pytest
import torch
from comfyui_rollout.diffusion.seeds import global_seed
from comfyui_rollout.hosts.host import Interrupted
from comfyui_rollout.training.loop import train
from comfyui_rollout.training.optimizers import OptimizerSettings
from comfyui_rollout.training.stream import Run, StepError, Stream
from regressions import PLAIN, same, trained
from torch import nn


def test_the_loop_is_gradient_descent(regression):
    """Against the same mathematics written down by hand, to the bit."""
    weights, steps = trained(regression(), clip_norm=0.0)
    loss, _, network = regression()
    losses = []
    for _ in range(5):
        value = loss.function(None, model=SimpleNamespace(network=network)).mean()
        losses.append(float(value.detach()))
        gradients = torch.autograd.grad(value, list(network.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(network.parameters(), gradients, strict=True):
                parameter.add_(gradient, alpha=-0.1)
    assert same(weights, list(network.parameters()))
    assert [float(step.metrics["loss"]) for step in steps] == losses


def noisy(regression, network=None):
    """The regression with noise on the network's answers, from the node's own generator."""
    loss, model, network = regression(network)

    def add_noise(step, value):
        return value * torch.rand(value.shape, generator=step.generator())

    return Stream(add_noise, {"value": loss}, "noise", "Noise"), model, network


def test_the_same_seed_gives_the_same_bits(regression):
    """And another seed other ones."""
    first, second, other = (trained(noisy(regression), seed=seed)[0] for seed in (1, 1, 2))
    assert same(first, second)
    assert not same(first, other)


def with_dropout():
    with global_seed(1):
        return nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5))


def test_dropout_is_seeded_by_the_run_alone(regression):
    """Dropout draws from torch's global generator: what the user did with it before must not matter."""
    results = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        results.append(trained(regression(with_dropout()))[0])
    assert same(*results)
    assert not same(results[0], trained(regression(with_dropout()), seed=5)[0])


def test_the_global_generator_is_left_alone(regression):
    """Nor may a run move the user's random numbers."""
    before = torch.get_rng_state()
    trained(regression(with_dropout()))
    assert torch.equal(torch.get_rng_state(), before)


def test_inference_mode_around_it_changes_nothing(regression):
    """ComfyUI runs every node in inference mode; the weights are the same to the bit, and the mode comes back."""
    outside, _ = trained(noisy(regression))
    wired = noisy(regression)
    with torch.inference_mode():
        inside, _ = trained(wired)
        assert torch.is_inference_mode_enabled()
    assert same(inside, outside)
    assert not same(inside, list(regression()[2].parameters()))


def test_the_caller_keeps_its_own_mode_between_the_steps(regression):
    """The loop is a generator: its gradient mode must not leak to whoever pulls it."""
    loss, model, _ = regression()
    with torch.no_grad():
        for _ in train(loss, model, PLAIN, steps=2, run=Run(loss, model)):
            assert not torch.is_grad_enabled()


@pytest.mark.parametrize("clip", [0.0, 0.5])
def test_accumulated_batches_are_one_large_batch(regression, clip):
    """2 x 8 points make the update of 1 x 16: the mean of the means, clipped once, one learning-rate step."""
    whole, steps = trained(regression(), clip_norm=clip)
    halves, half_steps = trained(
        regression(rows_of=lambda step: slice(8 * (step.index % 2), 8 * (step.index % 2) + 8)),
        accumulation=2,
        clip_norm=clip,
    )
    for one, other in zip(whole, halves, strict=True):
        torch.testing.assert_close(one, other)
    assert [step.update for step in half_steps] == [0, 1, 2, 3, 4]
    for one, other in zip(steps, half_steps, strict=True):
        assert float(one.metrics["loss"]) == pytest.approx(float(other.metrics["loss"]))


def test_every_pull_has_an_index_of_its_own(regression):
    """With accumulation the batches of one update differ, and ramps count updates."""
    pulls = []

    def note(step):
        pulls.append((step.index, step.update, step.watched))
        return slice(None)

    trained(regression(rows_of=note), steps=3, accumulation=2, watch_every=2)
    watched = [False, True, False, False, False, True]
    assert pulls == [(index, index // 2, watched[index]) for index in range(6)]


def test_gradients_are_clipped_to_the_norm(regression):
    """The step is as long as allowed; the metrics show the norm before clipping."""
    start = list(regression()[2].parameters())

    def moved(clip):
        weights, steps = trained(regression(), steps=1, clip_norm=clip)
        square = sum((new - old).square().sum() for new, old in zip(weights, start, strict=True))
        return float(square.detach().sqrt()) / 0.1, steps[0].metrics.get("gradient_norm")

    free, unmeasured = moved(0.0)
    assert unmeasured is None
    short, norm = moved(free / 3)
    assert short == pytest.approx(free / 3, rel=1e-4)
    assert float(norm) == pytest.approx(free, rel=1e-4)
    assert moved(free * 3)[0] == pytest.approx(free, rel=1e-4)


def both_kinds():
    return nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3))


def test_muon_in_fp16_is_refused(regression):
    """An overflow would be skipped by one of its two optimizers and not by the other; bf16 is fine."""
    muon = OptimizerSettings("muon")
    with pytest.raises(ValueError, match=r"^muon does not go with fp16, .*: choose bf16 or adamw$"):
        trained(regression(both_kinds()), muon, precision="fp16")
    trained(regression(both_kinds()), muon, steps=1, precision="bf16")


@pytest.mark.parametrize("other", [nn.Linear(1, 1).weight, torch.ones(1, 1)], ids=["another network", "no network"])
def test_a_loss_of_another_model_is_refused(regression, other):
    """Hours of steps that change nothing."""
    _, model, network = regression()
    loss = Stream(lambda step, model: (other**2).sum(1), {"model": model}, "loss", "Loss")
    with pytest.raises(ValueError, match=r"^the loss does not depend on the model that is trained: wire the same"):
        trained((loss, model, network))


def test_a_loss_that_uses_part_of_the_model_will_do(regression):
    """Some weights may wait for their turn, such as those of classes that were not drawn."""
    _, model, network = regression()
    loss = Stream(lambda step, model: model.network.bias**2, {"model": model}, "loss", "Loss")
    trained((loss, model, network))


def test_with_accumulation_every_metric_is_the_mean_of_the_pulls(regression):
    """Not the last pull's alone: tensors and numbers, of the loss and of every node."""
    loss, model, network = regression(rows_of=lambda step: slice(4 * (step.index % 4), 4 * (step.index % 4) + 4))

    def note(step, value):
        step.report("index", float(step.index))
        step.report("drift", torch.tensor([step.index, step.index + 2]))
        seen.append(float(value.detach().mean()))
        return value

    seen = []
    _, steps = trained((Stream(note, {"value": loss}, "note", "Note"), model, network), steps=2, accumulation=4)
    for number, step in enumerate(steps):
        assert step.metrics["index"] == 4 * number + 1.5
        assert float(step.metrics["drift"]) == 4 * number + 2.5
        assert float(step.metrics["loss"]) == pytest.approx(sum(seen[4 * number : 4 * number + 4]) / 4)
        assert step.metrics["learning_rate"] == 0.1


def test_watched_steps_come_at_their_interval(regression):
    """The first step and every n-th; 0 is never."""
    assert [step.watched for step in trained(regression(), watch_every=2)[1]] == [True, False, True, False, True]
    assert not any(step.watched for step in trained(regression())[1])


def test_the_network_is_set_to_training(regression):
    """A loaded model comes in evaluation mode, perhaps frozen."""
    loss, model, network = regression(with_dropout())
    network.eval().requires_grad_(False)
    trained((loss, model, network), steps=1)
    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())


def failing(regression, error, at):
    loss, model, network = regression()

    def fail(step, value):
        if step.update == at:
            raise error
        return value

    return Stream(fail, {"value": loss}, "7", "Some Loss"), model, network


def test_an_error_names_its_node_and_step(regression):
    """The loop lets the step's own message through."""
    with pytest.raises(StepError, match=r"^node 7 \(Some Loss\), step 3: boom$"):
        trained(failing(regression, ValueError("boom"), 3))


@pytest.mark.parametrize("stop", [Interrupted("stop"), KeyboardInterrupt()])
def test_a_stop_goes_through_and_leaves_no_traces(regression, stop):
    """Gradient mode and random numbers are the caller's again."""
    before, wired = torch.get_rng_state(), failing(regression, stop, 2)
    with torch.inference_mode(), pytest.raises(type(stop)):
        trained(wired)
    assert torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), before)
