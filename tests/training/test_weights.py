"""Averaged weights, and a teacher that stands still while others learn: both there only while they are asked for."""

import pytest
import torch
from comfyui_rollout.training.forward import autocast
from comfyui_rollout.training.loop import train
from comfyui_rollout.training.stream import Run
from comfyui_rollout.training.weights import Teacher, averaged, borrowed
from diffusers.training_utils import EMAModel
from regressions import PLAIN, same


def weights(*values):
    return [torch.nn.Parameter(torch.tensor([value, 1.0])) for value in values]


def test_the_teacher_stands_still():
    """It has the values of the moment in which it was made, and only inside."""
    parameters = weights(1.0, 2.0)
    teacher = Teacher(parameters)
    with torch.no_grad():
        parameters[0].add_(10)
    with borrowed(parameters):
        teacher.put_into(parameters)
        assert [parameter[0].item() for parameter in parameters] == [1.0, 2.0]
    assert [parameter[0].item() for parameter in parameters] == [11.0, 2.0]


def test_what_is_borrowed_comes_back_after_an_error():
    """A failing reference must not leave the teacher's weights in the student."""
    parameters = weights(1.0)

    def failing():
        with borrowed(parameters):
            parameters[0].data.zero_()
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        failing()
    assert parameters[0].tolist() == [1.0, 1.0]


def test_a_teacher_is_saved_and_restored_to_the_bit():
    """Eleven weights: names are put in order as numbers, not as text."""
    saved = Teacher(weights(*range(11)))
    resumed = Teacher(weights(*[9.0] * 11))
    resumed.load_state_dict(saved.state_dict())
    assert all(torch.equal(one, other) for one, other in zip(saved.weights, resumed.weights, strict=True))


def test_a_teacher_of_another_model_is_refused():
    """Before anything is changed."""
    with pytest.raises(ValueError, match="another model or LoRA"):
        Teacher(weights(1.0)).load_state_dict(Teacher(weights(1.0, 2.0)).state_dict())


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


def test_without_averaging_the_live_weights_are_used(regression):
    """averaged() is a no-op where nothing is averaged."""
    loss, model, network = regression()
    before = [parameter.detach().clone() for parameter in network.parameters()]
    with averaged(Run(loss, model), network):
        assert same(list(network.parameters()), before)
