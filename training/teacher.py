"""Weights that teach: as they were at some moment of the training, and still the same at its end.

A model that learns from its own guided path must not be that path's model: each step would guide what is guided
already, and it runs away (measured: docs/when_to_roll_out.md). A copy that stands still is what distillation uses
(Salimans and Ho, arXiv 2202.00512; Meng et al., arXiv 2210.03142).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from ..models.sharded import parted_like


@contextmanager
def borrowed(parameters: Sequence[Tensor]) -> Iterator[None]:
    """Whatever the parameters are made inside, they have their own values again behind it."""
    live = [parameter.detach().clone() for parameter in parameters]  # on the device, which nothing waits for
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(parameters, live, strict=True):
                parameter.copy_(value)


class Teacher:
    """A copy of these weights, as they are now. It is part of a run's state, so that a resumed one has the same."""

    def __init__(self, weights: Sequence[Tensor]) -> None:
        self.weights = [weight.detach().clone() for weight in weights]

    @torch.no_grad()
    def put_into(self, parameters: Sequence[Tensor]) -> None:
        """Give them the copy's values."""
        for parameter, value in zip(parameters, self.weights, strict=True):
            parameter.copy_(value)

    def state_dict(self) -> Mapping[str, Tensor]:
        return {str(place): weight for place, weight in enumerate(self.weights)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Raises ValueError where it is a copy of other weights."""
        shapes = [tuple(weight.shape) for weight in self.weights]
        if [tuple(state[name].shape) for name in sorted(state, key=int)] != shapes:
            raise ValueError("the state's teacher (reference_weights frozen) is one of another model or LoRA")
        for place, weight in enumerate(self.weights):
            weight.copy_(parted_like(state[str(place)], weight))
