"""Trainers whose states are saved and restored."""

import pytest
import torch
from comfyui_rollout.training.loop import prepare
from comfyui_rollout.training.optimizers import OptimizerSettings
from comfyui_rollout.training.stream import Run, Stream
from trained import dropout_network


@pytest.fixture
def trainer(regression):
    """``trainer(network, state=..., **options)``: ready for 12 steps; a new one each time, as another program's."""

    def make(own=None, settings=None, state=None, seed=0, **options):
        loss, model, _ = regression(own or dropout_network())
        settings = settings or OptimizerSettings(learning_rate=0.01)
        return prepare(loss, model, settings, steps=12, run=Run(loss, model, seed=seed), state=state, **options)

    return make


class Counter:
    """Something that outlives a step: it counts, and adds up what it saw."""

    def __init__(self):
        self.count, self.total = 0, torch.zeros(3)

    def see(self, value):
        self.count, self.total = self.count + 1, self.total + value.detach()

    def state_dict(self):
        return {"count": self.count, "total": self.total}

    def load_state_dict(self, state):
        self.count, self.total = state["count"], state["total"].clone()


@pytest.fixture
def counting(regression):
    """``counting(state)``: a trainer whose loss depends on what a node has kept, and the counters that were made."""
    made = []

    def make(state=None, node_id="7:3"):
        loss, model, _ = regression(dropout_network())

        def kept(step, loss, model):
            counter = step.keep(lambda: made.append(Counter()) or made[-1])
            counter.see(loss[:3])
            return loss * (1 + counter.total.mean() / counter.count)

        counted = Stream(kept, {"loss": loss, "model": model}, node_id, "Counter")
        run = Run(counted, model)
        settings = OptimizerSettings("sgd", learning_rate=0.01)
        return prepare(counted, model, settings, steps=12, run=run, state=state), made

    return make
