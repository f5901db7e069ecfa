"""A classifier of the real pictures, and how far samples are from them in the features that it has learnt.

Frechet distance (arXiv 1706.08500), its unbiased relative KID (arXiv 1801.01401), and precision and recall
(arXiv 1904.06991, k = 3): how much of what is made is like the data, and how much of the data is made.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from comfyui_rollout.diffusion import seeds
from numpy.typing import NDArray
from pictures import Pictures
from torch import Tensor, nn
from torch.nn import functional as F

Array = NDArray[np.float64]
EPOCHS, BATCH = 24, 64
NEIGHBOURS = 3


class Judge:
    """Trained on three quarters of the pictures; always the same for the same data."""

    def __init__(self, pictures: Pictures, device: str = "cpu") -> None:
        random = seeds.generator(0, "judge")
        order = torch.randperm(len(pictures.latents), generator=random)
        held_out = len(order) // 4
        with seeds.global_seed(0):
            self.network = classifier(pictures.latents.shape[1], len(pictures.names)).to(device)
        self.device = device
        learn(self.network, pictures, order[held_out:], random, device)
        self.accuracy = self.right(pictures.latents[order[:held_out]], pictures.labels[order[:held_out]])
        """On the quarter that it has not seen."""
        self.labels = pictures.labels
        self.real = self.features(pictures.latents)
        self.covered = radii(self.real)

    @torch.no_grad()
    def features(self, latents: Tensor) -> Array:
        """The last hidden layer (n, 64) for pictures (n, C, H, W)."""
        parts = [self.network[:-1](part.to(self.device)) for part in latents.clamp(-1, 1).split(512)]
        return torch.cat(parts).cpu().double().numpy()

    @torch.no_grad()
    def right(self, latents: Tensor, labels: Tensor) -> float:
        """Which share of the pictures is taken for the class that was asked for."""
        answers = self.network(latents.clamp(-1, 1).to(self.device)).argmax(1).cpu()
        return float((answers == labels).double().mean())

    def verdict(self, latents: Tensor, labels: Tensor) -> Mapping[str, float]:
        """All measures of samples (n, C, H, W) that were asked for as these classes (n,)."""
        made = self.features(latents)
        return {
            "fd": frechet_distance(made, self.real),
            "kid": kernel_distance(made, labels.numpy(), self.real, self.labels.numpy()),
            "precision": covered(made, self.real, self.covered),
            "recall": covered(self.real, made, radii(made)),
            "right": self.right(latents, labels),
        }


def classifier(channels: int, classes: int) -> nn.Sequential:
    """A small convolutional network for pictures of any size."""
    return nn.Sequential(
        nn.Conv2d(channels, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1, stride=2),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(256, 64),
        nn.ReLU(),
        nn.Linear(64, classes),
    )


def learn(network: nn.Module, pictures: Pictures, items: Tensor, random: torch.Generator, device: str) -> None:
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.02)
    steps = EPOCHS * (len(items) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, steps)
    for step in range(steps):
        start = step % (len(items) // BATCH)
        if start == 0:
            shuffled = items[torch.randperm(len(items), generator=random)]
        chosen = shuffled[start * BATCH :][:BATCH]
        latents, labels = (each[chosen].to(device) for each in (pictures.latents, pictures.labels))
        F.cross_entropy(network(latents), labels).backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()


def frechet_distance(one: Array, other: Array) -> float:
    """Between two clouds of points (n, d) and (m, d), as if they were normally distributed."""
    (one_cov, other_cov), gap = (np.cov(points, rowvar=False) for points in (one, other)), one.mean(0) - other.mean(0)
    # The trace of the root of a product of two positive matrices is the sum of the roots of its eigenvalues.
    roots = np.sqrt(np.linalg.eigvals(one_cov @ other_cov).real.clip(min=0))
    return float(gap @ gap + np.trace(one_cov) + np.trace(other_cov) - 2 * roots.sum())


def kernel_distance(one: Array, one_labels: Array, other: Array, other_labels: Array) -> float:
    """The unbiased squared maximum mean discrepancy with the kernel ``(x y / d + 1)**3``.

    Either cloud has as many points of each class as the data have. A pair of a point with itself is therefore replaced
    by the mean pair of its class; left out, classes would seem to meet each other more often than they do.
    """

    def kernel(a: Array, b: Array) -> Array:
        return (a @ b.T / a.shape[1] + 1) ** 3

    def within(points: Array, labels: Array) -> float:
        values = kernel(points, points)
        total = values.sum() - np.trace(values)
        for label in np.unique(labels):
            own = values[np.ix_(labels == label, labels == label)]
            total += (own.sum() - np.trace(own)) / max(1, len(own) - 1)
        return float(total / len(points) ** 2)

    return within(one, one_labels) + within(other, other_labels) - 2 * float(kernel(one, other).mean())


def distances(a: Array, b: Array) -> Array:
    """Squared, (n, m)."""
    return (np.square(a).sum(1)[:, None] + np.square(b).sum(1) - 2 * a @ b.T).clip(min=0)


def radii(points: Array) -> Array:
    """The squared distance (n,) of each point to the third nearest other one."""
    return np.partition(distances(points, points), NEIGHBOURS, axis=1)[:, NEIGHBOURS]


def covered(points: Array, manifold: Array, radius: Array) -> float:
    """Which share of the points is within the balls around the others."""
    return float((distances(points, manifold) <= radius).any(1).mean())
