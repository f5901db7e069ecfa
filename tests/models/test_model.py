"""What every family of networks shares."""

import pytest
import torch
from comfyui_rollout.models.model import Model
from torch import nn


class Plain(Model):
    """The least a family must define."""

    network_class = "Plain"

    @classmethod
    def check(cls, **settings):
        pass

    @classmethod
    def create(cls, **settings):
        return cls(nn.Sequential(nn.Linear(2, 2), nn.Dropout()))

    def __call__(self, x, timestep, conditioning):
        return self.network(x)

    classes = 0


def modes(model):
    return [module.training for module in model.network.modules()]


def test_evaluating_turns_dropout_off_and_on_again():
    """A rollout denoises as a sampler will: without dropout; the training forward has it."""
    model = Plain.create()
    with model.evaluating():
        assert modes(model) == [False] * 3
    assert modes(model) == [True] * 3


def test_each_module_gets_its_own_mode_back():
    """A part that was frozen in evaluation mode stays so."""
    model = Plain.create()
    model.network[0].eval()
    with model.evaluating():
        pass
    assert modes(model) == [True, False, True]


def test_the_mode_comes_back_after_an_error():
    """A rollout that fails must not leave the model without dropout."""
    model = Plain.create()
    with pytest.raises(KeyboardInterrupt), model.evaluating():
        raise KeyboardInterrupt
    assert modes(model) == [True] * 3


def test_the_device_is_that_of_the_weights():
    """Noise and labels are put where the weights are."""
    assert Plain.create().device.type == "cpu"
    assert Plain.create().to("meta").device.type == "meta"


def test_what_is_frozen_stays_so():
    """A network of which only a part is to be trained comes with the rest frozen, as all of torch has it."""
    model = Plain.create()
    model.network.bfloat16()[0].weight.requires_grad_(False)
    model.prepare_training()
    assert list(model.trained) == ["0.bias"]
    assert model(torch.ones(1, 2), None, {}).dtype == torch.float32
