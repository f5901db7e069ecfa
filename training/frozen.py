"""Weights as they were at some moment of a training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .loop import averaged, trained
from .stream import Run


class Frozen:
    """A copy of what is trained, and a way to put it into the network for a while; part of a run's state."""

    def __init__(self) -> None:
        self.weights: list[Tensor] = []

    def take(self, run: Run, network: nn.Module) -> None:
        """The weights as they are now: their running average, if the run keeps one."""
        with averaged(run, network):
            self.weights = [weight.detach().clone() for weight in trained(network)]

    @contextmanager
    def inside(self, network: nn.Module) -> Iterator[None]:
        """The network has the copy inside; the live weights if there is none yet."""
        weights = trained(network) if self.weights else []
        live = [weight.detach().clone() for weight in weights]
        put(self.weights, weights)
        try:
            yield
        finally:
            put(live, weights)

    def state_dict(self) -> dict[str, Tensor]:
        return {str(number): weight for number, weight in enumerate(self.weights)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.weights = [torch.clone(state[str(number)]) for number in range(len(state))]  # not the file's own memory


@torch.no_grad()
def put(values: list[Tensor], weights: list[nn.Parameter]) -> None:
    for value, weight in zip(values, weights, strict=True):
        weight.copy_(value)
