"""A classifier of the real digits, which judges samples and gives the features they are compared in."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

Array = NDArray[np.float64]


class DigitJudge:
    """scikit-learn's multi-layer perceptron, trained on three quarters of the digits; pixels are in -1..1."""

    def __init__(self) -> None:
        pixels, labels = load_digits(return_X_y=True)
        self.real = pixels / 8 - 1
        parts = train_test_split(self.real, labels, test_size=0.25, random_state=0, stratify=labels)
        self.network = MLPClassifier((128, 64), alpha=1e-3, max_iter=400, random_state=0).fit(parts[0], parts[2])
        self.accuracy = float(self.network.score(parts[1], parts[3]))
        """On the quarter of the digits that it has not seen."""

    def probabilities(self, pixels: Array) -> Array:
        """Of each class, for images (n, 64): (n, 10)."""
        return self.network.predict_proba(pixels)

    def features(self, pixels: Array) -> Array:
        """The last hidden layer (n, 64)."""
        hidden = pixels
        for weights, bias in zip(self.network.coefs_[:-1], self.network.intercepts_[:-1], strict=True):
            hidden = np.maximum(hidden @ weights + bias, 0)
        return hidden

    def frechet_distance(self, pixels: Array) -> float:
        """How far images (n, 64) are from the real digits: FID's formula (arXiv 1706.08500) in these features."""
        return frechet_distance(self.features(pixels), self.features(self.real))


def frechet_distance(one: Array, other: Array) -> float:
    """Between two clouds of points (n, d) and (m, d), as if they were normally distributed."""
    covariances = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    mean_part = np.square(one.mean(0) - other.mean(0)).sum()
    # The trace of the product's root, by its eigenvalues: a root of the matrix itself warns where features are dead.
    roots = np.sqrt(np.linalg.eigvals(covariances[0] @ covariances[1]).real.clip(0))
    return float(mean_part + np.trace(sum(covariances)) - 2 * roots.sum())
