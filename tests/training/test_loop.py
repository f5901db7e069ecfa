"""The training loop from plain Python: to the bit, and when it ends early."""

import json
from types import SimpleNamespace

import pytest
import torch
from comfyui_rollout.diffusion.seeds import global_seed
from comfyui_rollout.hosts.host import Interrupted
from comfyui_rollout.training import clock as clock_module
from comfyui_rollout.training import metrics as metrics_module
from comfyui_rollout.training.loop import autocast, averaged, train
from comfyui_rollout.training.metrics import Metrics
from comfyui_rollout.training.optimizers import OptimizerSettings
from comfyui_rollout.training.stream import Run, Step, StepError, Stream
from diffusers.training_utils import EMAModel
from torch import nn

PLAIN = OptimizerSettings("sgd", learning_rate=0.1, weight_decay=0.0, beta1=0.0)


def trained(wired, settings=PLAIN, *, steps=5, seed=0, **options):
    """The weights after some steps, and the steps themselves."""
    loss, model, network = wired
    run = Run(loss, model, seed=seed)
    taken = list(train(loss, model, settings, steps=steps, run=run, **options))
    return [parameter.detach().clone() for parameter in network.parameters()], taken


def same(first, second):
    return all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


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


def test_averaged_weights_are_those_of_diffusers(regression):
    """The same run without EMA, averaged beside it by hand, ends with the same bits; training itself is unchanged."""
    loss, model, network = regression()
    run = Run(loss, model)
    for _ in train(loss, model, PLAIN, steps=12, run=run, ema_decay=0.5):
        pass

    loss, model, alone = regression()
    by_hand = EMAModel(alone.parameters(), decay=0.5)
    for _ in train(loss, model, PLAIN, steps=12, run=Run(loss, model)):
        by_hand.step(alone.parameters())

    live = [parameter.detach().clone() for parameter in network.parameters()]
    assert same(live, list(alone.parameters()))
    with averaged(run, network):
        inside = [parameter.detach().clone() for parameter in network.parameters()]
    assert same(inside, by_hand.shadow_params)
    assert not same(inside, live)
    assert same(list(network.parameters()), live)


@pytest.fixture
def with_average(regression):
    """A run whose averaged weights are far from the live ones, its network, and the live weights."""
    loss, model, network = regression()
    run = Run(loss, model)
    for _ in train(loss, model, PLAIN, steps=12, run=run, ema_decay=0.9):
        pass
    return run, network, [parameter.detach().clone() for parameter in network.parameters()]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_live_weights_come_back_when_sampling_fails(with_average, error):
    """An error or a stop among averaged weights must not make them the live ones."""
    run, network, live = with_average

    def fail():
        assert not same(list(network.parameters()), live)
        raise error

    with pytest.raises(error), averaged(run, network):
        fail()
    assert same(list(network.parameters()), live)
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_the_backup_of_live_weights_stays_on_the_device(with_average, monkeypatch):
    """EMAModel's own store goes through the processor's memory, which waits for the device in every step."""
    run, network, live = with_average

    def refuse(*arguments):
        raise AssertionError("the weights leave the device")

    monkeypatch.setattr(run.averaged_weights, "store", refuse)
    monkeypatch.setattr(torch.Tensor, "cpu", refuse)
    with averaged(run, network):
        pass
    assert same(list(network.parameters()), live)


def test_half_precision_uses_the_averaged_weights_too(with_average):
    """Right after a forward of the live ones, whose converted copies must not be taken for the average's."""
    run, network, _ = with_average
    points = torch.randn(64, 4, generator=torch.Generator().manual_seed(3))
    with torch.no_grad(), averaged(run, network):
        wanted = network(points)
    with torch.no_grad(), autocast(run.device, "bf16"):
        live = network(points).float()
        with averaged(run, network):
            found = network(points)
        again = network(points).float()
    assert found.dtype == torch.bfloat16
    assert (found - wanted).abs().max() < 0.1 * (live - wanted).abs().max()
    assert torch.equal(again, live)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_rollout_before_the_training_forward_changes_no_gradient(regression, precision):
    """Its converted weights, made without gradient, must not serve the training forward."""

    def rolled_first(wired):
        loss, model, network = wired

        def function(step, model):
            with torch.no_grad():
                model.network(torch.ones(2, 4))
            return loss.function(step, model)

        return Stream(function, {"model": model}, "loss", "Loss"), model, network

    plain, _ = trained(regression(), precision=precision)
    rolled, _ = trained(rolled_first(regression()), precision=precision)
    assert same(plain, rolled)
    assert not same(plain, list(regression()[2].parameters()))


def test_without_averaging_the_live_weights_are_used(regression):
    """averaged() is a no-op where nothing is averaged."""
    loss, model, network = regression()
    before = [parameter.detach().clone() for parameter in network.parameters()]
    with averaged(Run(loss, model), network):
        assert same(list(network.parameters()), before)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_learns_and_keeps_whole_weights(regression, precision):
    """The forward pass is in half precision, the weights stay float32, and the loss goes down as in float32."""
    seen = []
    loss, model, network = regression()
    network.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    _, steps = trained((loss, model, network), steps=20, precision=precision)
    expected = trained(regression(), steps=20)[1]
    assert set(seen) == {torch.bfloat16 if precision == "bf16" else torch.float16}
    assert all(parameter.dtype == torch.float32 for parameter in network.parameters())
    last, wanted = (float(taken[-1].metrics["loss"]) for taken in (steps, expected))
    assert last == pytest.approx(wanted, rel=0.02)


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
