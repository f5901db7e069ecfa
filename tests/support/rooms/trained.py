"""A small trainer gone on with, and what is compared of it and of its states."""

import torch
from comfyui_rollout.diffusion.seeds import global_seed
from torch import nn


def dropout_network():
    """A network whose every step draws random numbers."""
    with global_seed(1):
        return nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.5), nn.Linear(6, 3))


def go(trainer, steps):
    """The losses of the next steps."""
    updates = trainer.updates()
    return [float(next(updates).metrics["loss"]) for _ in range(steps)]


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def names(folder):
    return sorted(path.name for path in folder.iterdir())
