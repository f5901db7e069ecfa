"""The regression of the training tests, trained."""

import torch
from comfyui_rollout.training.loop import train
from comfyui_rollout.training.optimizers import OptimizerSettings
from comfyui_rollout.training.stream import Run

PLAIN = OptimizerSettings("sgd", learning_rate=0.1, weight_decay=0.0, beta1=0.0)


def trained(wired, settings=PLAIN, *, steps=5, seed=0, **options):
    """The weights after some steps, and the steps themselves."""
    loss, model, network = wired
    run = Run(loss, model, seed=seed)
    taken = list(train(loss, model, settings, steps=steps, run=run, **options))
    return [parameter.detach().clone() for parameter in network.parameters()], taken


def same(first, second):
    return all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
