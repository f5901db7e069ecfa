"""Optimizers and learning-rate schedules."""

from functools import cache

import pytest
import torch
from comfyui_rollout.diffusion.seeds import global_seed
from comfyui_rollout.training import optimizers
from comfyui_rollout.training.loop import train
from comfyui_rollout.training.optimizers import OptimizerSettings, check_optimizer, installed
from comfyui_rollout.training.stream import Run, Stream
from comfyui_rollout.training.weights import averaged
from torch import nn
from toys import Plain

NAMES = ["adamw", "adafactor", "sgd", "muon"]
OPTIONAL = ["prodigy", "came", "lion", "adamw_schedule_free", "adamw_8bit"]


def losses_of(loss, model, settings, steps):
    run = Run(loss, model)
    return [float(step.metrics["loss"]) for step in train(loss, model, settings, steps=steps, run=run)]


@pytest.mark.parametrize("name", NAMES)
def test_each_optimizer_learns(regression, name):
    """Whatever is chosen, the loss goes down to what can be reached."""
    loss, model, _ = regression()
    losses = losses_of(loss, model, OptimizerSettings(name, learning_rate=0.1, weight_decay=0.0), 100)
    assert losses[-1] < 0.7 * losses[0]
    solution = regression_floor(regression)
    assert losses[-1] < solution * 1.1


def regression_floor(regression):
    """The smallest loss that a linear map can reach, by a long run of plain gradient descent."""
    loss, model, _ = regression()
    return losses_of(loss, model, OptimizerSettings("sgd", learning_rate=0.3, weight_decay=0.0), 300)[-1]


@pytest.mark.parametrize("name", NAMES)
def test_weight_decay_pulls_towards_zero(regression, name):
    """The widget reaches every optimizer."""

    def weights(decay):
        loss, model, network = regression()
        losses_of(loss, model, OptimizerSettings(name, learning_rate=0.05, weight_decay=decay), 5)
        return network.weight.norm()

    assert weights(0.9) < weights(0.0)


def test_the_betas_reach_the_optimizers():
    """beta1 is AdamW's first beta and the momentum of the others."""
    network = nn.Linear(2, 2)
    settings = {"beta1": 0.7, "beta2": 0.8}
    assert OptimizerSettings("adamw", **settings).optimizers(network)[0].defaults["betas"] == (0.7, 0.8)
    assert OptimizerSettings("sgd", **settings).optimizers(network)[0].defaults["momentum"] == 0.7
    muon, adamw = OptimizerSettings("muon", **settings).optimizers(network)
    assert muon.defaults["momentum"] == 0.7
    assert adamw.defaults["betas"] == (0.7, 0.8)


def test_muon_takes_the_matrices_and_adamw_the_rest():
    """Each weight is trained exactly once."""
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Linear(4, 5))
    muon, adamw = OptimizerSettings("muon").optimizers(network)
    shapes = [sorted(tuple(p.shape) for group in o.param_groups for p in group["params"]) for o in (muon, adamw)]
    assert shapes == [[(5, 4)], [(2,), (2, 1, 3, 3), (5,)]]


def test_muon_alone_where_there_are_only_matrices():
    """No empty optimizer beside it."""
    assert len(OptimizerSettings("muon").optimizers(nn.Linear(2, 2, bias=False))) == 1


def test_muon_without_matrices_is_refused():
    """One line that says what to choose instead."""
    with pytest.raises(ValueError, match="this network has none: choose adamw"):
        OptimizerSettings("muon").optimizers(nn.Conv2d(1, 1, 3))


def test_muon_in_an_older_torch_is_refused(monkeypatch):
    """requirements.txt allows torch 2.5, which has no Muon."""
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(ValueError, match=r"Muon needs torch 2\.9 or newer"):
        OptimizerSettings("muon").optimizers(nn.Linear(2, 2))


def test_an_unknown_optimizer_is_refused():
    """From plain Python a name may be anything."""
    with pytest.raises(ValueError, match="unknown optimizer 'ion': one of adamw"):
        OptimizerSettings("ion").optimizers(nn.Linear(2, 2))


def test_what_is_not_installed_is_not_offered(monkeypatch):
    """A workflow that wants it says what to install."""
    monkeypatch.setattr(optimizers, "find_spec", lambda library: None)
    assert installed() == NAMES
    for name, package in (("came", "pytorch-optimizer"), ("adamw_8bit", "bitsandbytes")):
        with pytest.raises(
            ValueError, match=f"^optimizer: {name} needs {package}, .* pip install {package}, or choose"
        ):
            check_optimizer(name)


def test_prodigy_with_a_rate_for_adamw_is_refused():
    """It would hardly learn, silently."""
    with pytest.raises(ValueError, match=r"^learning_rate: prodigy finds the rate itself .* 0\.0001 .*: set 1"):
        OptimizerSettings("prodigy").optimizers(nn.Linear(2, 2))


class Adapted(nn.Module):
    """A frozen matrix with a new LoRA of rank 4."""

    def __init__(self):
        super().__init__()
        with global_seed(3):
            self.base, self.down, self.up = (
                nn.Linear(48, 48),
                nn.Linear(48, 4, bias=False),
                nn.Linear(4, 48, bias=False),
            )
        self.base.requires_grad_(False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x):
        return self.base(x) + self.up(self.down(x))


@cache
def learnt(name, steps=300):
    """Share of the error that a new LoRA loses on a change of rank 4, and its last loss with averaged weights."""
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(64, 48, generator=generator)
    change = torch.randn(4, 48, generator=generator).T @ torch.randn(4, 48, generator=generator) / 48
    network = Adapted()
    answer = network(x).detach() + x @ change
    model = Stream(lambda step: Plain(network), node_id="model")
    loss = Stream(lambda step, model: (model.network(x) - answer).square().mean(1), {"model": model}, "loss", "Loss")
    rate = {"prodigy": 1.0, "lion": 1e-3}.get(name, 3e-3)
    settings, run = OptimizerSettings(name, learning_rate=rate, weight_decay=0.0), Run(loss, model)
    first, *_ = [float(step.metrics["loss"]) for step in train(loss, model, settings, steps=steps, run=run)]
    with averaged(run, network), torch.no_grad():
        return 1 - float((network(x) - answer).square().mean()) / first


@pytest.mark.parametrize("name", ["adafactor", "muon", *OPTIONAL])
def test_a_new_lora_learns_as_far_as_with_adamw(name):
    """Within a tenth, at a rate of the size that its users choose; half of its weights begin at zero."""
    if name not in installed():
        pytest.skip(f"{name} is not installed")
    reference = learnt("adamw")
    assert reference > 0.9
    assert learnt(name) > 0.9 * reference


def test_a_schedule_free_optimizer_shows_its_average(regression):
    """Samples and saved models have the average of the weights; the training goes on from its own, to the bit."""
    pytest.importorskip("pytorch_optimizer")
    loss, model, network = regression()
    run = Run(loss, model)
    for _ in train(loss, model, OptimizerSettings("adamw_schedule_free", learning_rate=0.1), steps=5, run=run):
        pass
    (optimizer,), live = run.schedule_free, network.weight.detach().clone()
    with averaged(run, network):
        average = network.weight.detach().clone()
    assert torch.equal(network.weight, live)
    assert torch.allclose(average, live.lerp(optimizer.state[network.weight]["z"], 1 - 1 / 0.9))
    assert not torch.equal(average, live)


def test_two_averages_at_once_are_refused(regression):
    """A schedule-free optimizer has one already."""
    pytest.importorskip("pytorch_optimizer")
    loss, model, _ = regression()
    settings = OptimizerSettings("adamw_schedule_free")
    with pytest.raises(ValueError, match=r"^ema_decay: adamw_schedule_free averages the weights by itself: set 0"):
        list(train(loss, model, settings, steps=1, run=Run(loss, model), ema_decay=0.9))


def test_frozen_weights_are_left_out():
    """A frozen part is not decayed either."""
    network = nn.Linear(2, 2)
    network.bias.requires_grad_(False)
    (optimizer,) = OptimizerSettings("adamw").optimizers(network)
    assert [parameter.shape for parameter in optimizer.param_groups[0]["params"]] == [(2, 2)]


def rates(regression, schedule, steps=10, **settings):
    loss, model, _ = regression()
    settings = OptimizerSettings("sgd", learning_rate=0.1, lr_schedule=schedule, **settings)
    run = Run(loss, model)
    return [step.metrics["learning_rate"] for step in train(loss, model, settings, steps=steps, run=run)]


def test_a_constant_rate_stays(regression):
    """And does not care for warmup_steps."""
    assert rates(regression, "constant", warmup_steps=5) == [0.1] * 10


def test_a_short_run_warms_up_no_longer_than_it_lasts(regression):
    """A workflow tried with few steps must still reach its learning rate's neighbourhood."""
    assert rates(regression, "constant_with_warmup", 4, warmup_steps=50) == rates(
        regression, "constant_with_warmup", 4, warmup_steps=4
    )


def test_warmup_rises_from_zero(regression):
    """The rate in the metrics is the one that the update was made with."""
    expected = [0, 0.025, 0.05, 0.075, 0.1, 0.1]
    assert rates(regression, "constant_with_warmup", 6, warmup_steps=4) == pytest.approx(expected)


def test_linear_falls_evenly_to_the_end(regression):
    """The schedule knows how many updates there will be."""
    assert rates(regression, "linear", 5) == pytest.approx([0.1, 0.08, 0.06, 0.04, 0.02])


def test_cosine_is_half_way_at_half_time(regression):
    """Slow, fast, slow, and near zero at the end."""
    found = rates(regression, "cosine", 100)
    assert found[50] == pytest.approx(0.05)
    assert found[0] == pytest.approx(0.1)
    assert 0 < found[-1] < 0.001


@pytest.mark.parametrize("schedule", ["cosine_with_restarts", "polynomial"])
def test_the_other_schedules_go_down_too(regression, schedule):
    """All names of the widget work."""
    found = rates(regression, schedule)
    assert found[0] == pytest.approx(0.1)
    assert found[-1] < 0.05


def test_restarts_go_back_to_the_full_rate(regression):
    """num_cycles says how often; plain cosine does not care."""
    twice = rates(regression, "cosine_with_restarts", num_cycles=2)
    assert twice[:5] == pytest.approx(twice[5:])
    assert twice[5] == pytest.approx(0.1) == twice[0]
    assert twice[4] < 0.02
    assert rates(regression, "cosine_with_restarts", 12).count(0.1) == 3
    once = rates(regression, "cosine_with_restarts", num_cycles=1)
    assert once == pytest.approx(rates(regression, "cosine", num_cycles=7))
    assert once != pytest.approx(twice)


def test_each_of_two_optimizers_follows_the_schedule():
    """Muon and its AdamW slow down together."""
    with global_seed(0):
        network = nn.Linear(2, 2)
    settings = OptimizerSettings("muon", lr_schedule="linear")
    schedulers = [settings.scheduler(optimizer, 10) for optimizer in settings.optimizers(network)]
    assert [scheduler.get_last_lr() for scheduler in schedulers] == [[1e-4], [1e-4]]


@pytest.mark.parametrize(
    "name", ["constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial"]
)
def test_the_learning_rate_depends_on_the_step_alone(name):
    """A schedule that begins in the middle has the rates, to the bit, of one that came there step by step."""
    settings = OptimizerSettings("sgd", learning_rate=0.3, lr_schedule=name, warmup_steps=4)

    def rates(done, steps):
        optimizer = settings.optimizers(nn.Linear(2, 2))[0]
        scheduler = settings.scheduler(optimizer, 20, done)
        found = []
        for _ in range(steps):
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        return found

    whole = rates(0, 20)
    for done in (1, 4, 13):
        assert rates(done, 20 - done) == whole[done:]
