"""Optimizer: its widgets are the settings, and every choice trains."""

import pytest
from comfyui_rollout import nodes
from comfyui_rollout.runs.metrics_file import read_metrics
from comfyui_rollout.training.optimizers import OptimizerSettings


def test_the_widgets_make_the_settings(wire):
    """Every setting of Optimizer arrives."""
    settings = {"learning_rate": 0.5, "weight_decay": 0.1, "beta1": 0.8, "beta2": 0.9, "lr_schedule": "cosine"}
    settings |= {"warmup_steps": 7, "num_cycles": 5}
    assert wire(nodes.Optimizer, optimizer="muon", **settings) == OptimizerSettings("muon", **settings)
    assert wire(nodes.Optimizer) == OptimizerSettings()


def test_an_optimizer_that_would_not_learn_is_refused(wire):
    """In the editor, and when it is wired in: its line says what to do."""
    assert nodes.Optimizer.VALIDATE_INPUTS(optimizer="adamw", learning_rate=1e-4) is True
    assert nodes.Optimizer.VALIDATE_INPUTS(optimizer=None, learning_rate=None) is True
    assert nodes.Optimizer.VALIDATE_INPUTS(optimizer="soap", learning_rate=1e-4).startswith("unknown optimizer 'soap'")
    told = nodes.Optimizer.VALIDATE_INPUTS(optimizer="prodigy", learning_rate=1e-4)
    with pytest.raises(ValueError, match="prodigy") as caught:
        wire(nodes.Optimizer, optimizer="prodigy")
    assert told == str(caught.value)


@pytest.mark.parametrize("name", nodes.Optimizer.INPUT_TYPES()["required"]["optimizer"][0])
@pytest.mark.parametrize("family", ["unet", "dit"])
def test_every_optimizer_trains_every_family(graph, wire, train, name, family):
    """All pairs work, and the weights stay finite."""
    optimizer = wire(nodes.Optimizer, optimizer=name, learning_rate=1.0 if name == "prodigy" else 1e-3)
    run = train(graph(model={"family": family, "width": 32}), optimizer=optimizer, steps=2)
    assert all(value.isfinite().all() for value in run.weights.values())


@pytest.mark.parametrize("schedule", nodes.Optimizer.INPUT_TYPES()["required"]["lr_schedule"][0])
def test_every_learning_rate_schedule_runs(graph, wire, train, schedule):
    """Each name of the widget is known to diffusers."""
    optimizer = wire(nodes.Optimizer, lr_schedule=schedule, warmup_steps=1)
    assert len(read_metrics(train(graph(), optimizer=optimizer, steps=3).folder)) == 3
