"""Weights that are updated one at a time: the very updates of all at once, and bf16 that arrives on average."""

import pytest
import torch
from comfyui_rollout.training.loop import prepare
from comfyui_rollout.training.one_by_one import KINDS, rounded
from comfyui_rollout.training.optimizers import OptimizerSettings, installed
from comfyui_rollout.training.state import find_state, save_state, tensors_of
from comfyui_rollout.training.stream import Run, Stream
from torch import nn
from trained import dropout_network, go, same

FUSED = {"fused_backward": True, "clip_norm": 0.0}
BF16 = {"weights_dtype": "bf16", "precision": "bf16"}
HERE = [name for name in KINDS if name in installed()]


@pytest.fixture
def trainer(regression):
    """``trainer(name, **options)``: ready for 12 steps; a new one each time."""

    def make(name="adamw", own=None, state=None, **options):
        loss, model, _ = regression(own or dropout_network())
        settings = OptimizerSettings(name, learning_rate=0.01, lr_schedule="cosine", warmup_steps=4)
        return prepare(loss, model, settings, steps=12, run=Run(loss, model, seed=5), state=state, **options)

    return make


@pytest.mark.parametrize("on_bad_step", ["skip", "stop"])
@pytest.mark.parametrize("name", HERE)
def test_fused_backward_is_the_ordinary_update_to_the_bit(trainer, name, on_bad_step):
    """Losses, weights, averages and all that the optimizer remembers, over a rate that changes at every step."""
    options = {"ema_decay": 0.9, "clip_norm": 0.0, "on_bad_step": on_bad_step}
    plain, fused = trainer(name, **options), trainer(name, **options, fused_backward=True)
    assert go(plain, 12) == go(fused, 12)
    assert same(tensors_of(plain), tensors_of(fused))


@pytest.mark.parametrize(
    ("value", "loss"), [(1.0, float("inf")), (1.0, float("nan")), (float("nan"), 1.0)], ids=["inf", "nan", "gradient"]
)
def test_the_gradient_of_a_bad_loss_counts_as_zero_however_finite(trainer, value, loss):
    """And so does one that is no number itself: the weight is as after no gradient at all, and the step is known."""
    found = []
    for gradient, of in ((value, loss), (0.0, 1.0)):
        made = trainer(**FUSED, on_bad_step="skip")
        weight = made.parameters[0]
        weight.grad = torch.full_like(weight, gradient)
        made.one_by_one.begin(0)
        made.one_by_one.step_if_finite(weight, torch.tensor(of))
        found.append((weight.detach().clone(), bool(made.one_by_one.bad)))
    (after, bad), (expected, fine) = found
    assert torch.equal(after, expected)
    assert (bad, fine) == (True, False)


def test_a_gradient_is_let_go_as_soon_as_it_was_used(trainer):
    """Never more than one is there: all others' would be as large as what is trained."""
    made = trainer(**FUSED)
    seen = []
    step = made.one_by_one.step

    def watched(weight):
        seen.append(sum(other.grad is not None for other in made.parameters))
        step(weight)

    made.one_by_one.step = watched
    go(made, 2)
    assert seen == [1] * 8
    assert all(weight.grad is None for weight in made.parameters)


@pytest.mark.parametrize("name", HERE)
@pytest.mark.parametrize("fused", [False, True])
def test_a_resumed_training_in_bf16_goes_on_to_the_bit(trainer, tmp_path, name, fused):
    """What is drawn for rounding hangs on the step; means and averages stay in float32, also in the file."""
    options = BF16 | {"ema_decay": 0.9} | (FUSED if fused else {})
    whole, first = trainer(name, **options), trainer(name, **options)
    losses = go(whole, 12)
    assert go(first, 5) == losses[:5]
    save_state(tmp_path, first)
    second = trainer(name, **options, state=find_state(tmp_path))
    assert go(second, 7) == losses[5:]
    assert same(tensors_of(second), tensors_of(whole))
    assert {weight.dtype for weight in second.parameters} == {torch.bfloat16}
    kept = {key: value.dtype for key, value in tensors_of(second).items() if key.startswith(("optimizer", "averaged"))}
    assert torch.bfloat16 not in kept.values()


def test_rounding_is_right_on_average_and_goes_to_neighbours_only():
    """Over many draws the mean is the number itself; what bf16 has exactly stays as it is."""
    random = torch.Generator().manual_seed(0)
    values = torch.tensor([1.0, 1.001, -3.1415, 1e-20, 0.0, float("inf"), float("-inf")])
    drawn = torch.stack([rounded(values, random).float() for _ in range(20_000)])
    finite = values[:5]
    assert torch.allclose(drawn[:, :5].mean(0), finite, rtol=2e-4, atol=0)
    nearest = finite.to(torch.bfloat16).float()
    step = finite.abs() / 128
    assert ((drawn[:, :5] - finite).abs() <= step).all()
    assert (drawn[:, [0, 4]] == nearest[[0, 4]]).all()
    assert all(len(column.unique()) == 2 for column in drawn[:, 1:4].T)
    assert torch.equal(drawn[0, 5:], values[5:])
    assert rounded(torch.tensor([float("nan")]), random).isnan().all()


def pulled(rate, steps, **options):
    """10,000 weights of 1 after so many steps of SGD with a gradient of 1."""
    model = Stream(lambda step: step.keep(lambda: Ones()), node_id="model")
    loss = Stream(lambda step, model: model.network.weight.float().sum().reshape(1), {"model": model}, "loss")
    settings = OptimizerSettings("sgd", learning_rate=rate, weight_decay=0.0, beta1=0.0)
    made = prepare(loss, model, settings, steps=steps, run=Run(loss, model, seed=0), clip_norm=0.0, **options)
    go(made, steps)
    return made.parameters[0].detach().float()


class Ones:
    """A model of one weight, in bf16 if it is asked for that."""

    adapters, swap = (), None

    def __init__(self):
        self.network = nn.Module()
        self.network.weight = nn.Parameter(torch.ones(10_000))

    def prepare_training(self, dtype=torch.float32):
        self.network.weight.data = self.network.weight.data.to(dtype)

    def training(self):
        return torch.enable_grad()


@pytest.mark.parametrize("fused", [False, True])
def test_updates_smaller_than_bf16_can_say_arrive_on_average(fused):
    """A step of 1/2000 from 1 is an eighth of what a bf16 below 1 can change by: the nearest would be 1 for ever."""
    assert torch.tensor(1 - 5e-4).to(torch.bfloat16) == 1
    found = pulled(5e-4, 200, **BF16, fused_backward=fused)
    exact = pulled(5e-4, 200)
    assert abs(found.mean() - exact.mean()) < 2e-3
    assert exact.mean() < 0.91


@pytest.mark.parametrize("fused", [{}, FUSED])
def test_a_step_that_is_no_number_changes_nothing_but_means(trainer, fused):
    """As in the ordinary update, its gradient counts as zero, and the metrics say so."""
    made = trainer("sgd", **BF16, **fused)
    go(made, 1)
    poisoned = made.network[0].register_forward_hook(lambda _, __, output: output * float("nan"))
    updates = made.updates()
    step = next(updates)
    poisoned.remove()
    assert bool(step.metrics["skipped"])
    assert all(weight.isfinite().all() for weight in made.parameters)
    assert torch.isfinite(next(updates).metrics["loss"])


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"fused_backward": True}, r"^clip_norm: with fused_backward it needs all gradients at once.* set 0"),
        (FUSED | {"accumulation": 2}, r"^accumulation: with fused_backward gradients are not added up: set 1"),
        (BF16 | {"accumulation": 2}, r"^accumulation: with weights_dtype bf16 .* in bf16: set 1"),
        (FUSED | {"on_out_of_memory": "halve"}, r"^on_out_of_memory: .* choose stop, or switch fused_backward off"),
        (BF16 | {"precision": "fp32"}, r"^precision: .* computes in bf16: choose bf16, or choose weights_dtype fp32"),
        (FUSED | {"precision": "fp16"}, r"^precision: .* before an update: choose bf16, or switch fused_backward off"),
    ],
)
def test_what_needs_all_gradients_is_refused(trainer, options, line):
    """In one line that says what to change; nothing is trained in another way than it was asked for."""
    with pytest.raises(ValueError, match=line):
        trainer(**options)


@pytest.mark.parametrize("name", [name for name in installed() if name not in (*KINDS, "prodigy")])
def test_optimizers_that_know_all_weights_are_refused(trainer, name):
    with pytest.raises(ValueError, match=rf"^optimizer: {name} keeps something of all weights together, and fused"):
        trainer(name, **FUSED)
