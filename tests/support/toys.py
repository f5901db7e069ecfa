"""Toy networks, toy data and a host that remembers: what several rooms' tests share."""

from types import SimpleNamespace

import pytest
import torch
from comfyui_rollout.data.data import Batch, DatasetInfo
from comfyui_rollout.diffusion.seeds import global_seed
from comfyui_rollout.hosts.host import Host
from comfyui_rollout.models.families import UNet
from comfyui_rollout.models.model import Model
from comfyui_rollout.training.stream import Stream
from torch import nn

torch.set_num_threads(1)  # tiny tensors: more threads only get in each other's way


class Listener(Host):
    """A host that remembers what it was told."""

    def __init__(self, *wanted):
        self.wanted, self.told = wanted, []

    def wants(self, kind):
        return kind in self.wanted

    def make_room(self):
        self.told.append(("make_room",))

    def progress(self, node_id, value, maximum):
        self.told.append(("progress", node_id, value, maximum))

    def show(self, node_id, kind, update, picture):
        self.told.append(("show", node_id, kind, update, picture))

    def metrics(self, node_id, rows):
        self.told.append(("metrics", node_id, rows))

    def resumed(self, node_id, text):
        self.told.append(("resumed", node_id, text))

    def finish(self, node_id):
        self.told.append(("finish", node_id))

    def check_interrupted(self):
        self.told.append(("check_interrupted",))


@pytest.fixture
def listener():
    """``listener("noisy", ...)``: a host that wants these kinds of pictures."""
    return Listener


@pytest.fixture
def small_unet():
    """``small_unet(classes=10)``: the smallest network there is, always with the same weights."""

    def create(classes=10, size=8, **settings):
        with global_seed(0):
            return UNet.create(channels=1, size=size, classes=classes, width=8, depth=1, **settings)

    return create


class Plain(Model):
    """Any network as a model."""

    def __call__(self, x, timestep, conditioning):
        return self.network(x)


@pytest.fixture
def regression():
    """``regression(network)``: a loss stream and a model stream that fit 16 fixed points, without any noise."""

    def wire(network=None, *, rows_of=lambda step: slice(None), keep_mode=lambda network: None):
        if network is None:
            with global_seed(1):
                network = nn.Linear(4, 3)
        generator = torch.Generator().manual_seed(2)
        points, answers = torch.randn(16, 4, generator=generator), torch.randn(16, 3, generator=generator)
        model = Stream(lambda step: Plain(network), node_id="model", title="Model")

        def loss(step, model):
            chosen = rows_of(step)
            return (model.network(points[chosen]) - answers[chosen]).square().mean(1)

        return Stream(loss, {"model": model}, "loss", "Loss"), model, network

    return wire


def with_loss(graph, change):
    """The graph of a test with one more node behind its loss: ``change(step, value)``."""
    loss = Stream(change, {"value": graph.loss}, "extra", "Extra")
    return SimpleNamespace(**{**vars(graph), "loss": loss})


class Numbered:
    """A data set whose item n is the number n, so that a batch says what is in it."""

    def __init__(self, count):
        self.info = DatasetInfo("numbers", count, 1, 1)
        self.asked = []

    def batch(self, items, generators):
        self.asked.append(items)
        draws = torch.cat([torch.rand(1, generator=generators[place]) for place in range(len(items))])
        return Batch(torch.tensor(items).float().reshape(-1, 1, 1, 1), {"draw": draws})


@pytest.fixture
def numbered():
    return Numbered


@pytest.fixture
def one_line():
    """The message of a caught error, which must be a single line."""

    def message(caught):
        text = str(caught.value)
        assert "\n" not in text
        return text

    return message
