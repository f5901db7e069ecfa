"""Which weights a forward happens with, if not the live ones: their average, or those of a teacher.

A teacher is the model as it was at some moment of the training, and still is at its end. A model that learns from its
own guided path must not be that path's model: each step would guide what is guided already, and it runs away (measured:
docs/when_to_roll_out.md). A copy that stands still is what distillation uses (Salimans and Ho, arXiv 2202.00512; Meng
et al., arXiv 2210.03142).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..models.model import trained_in
from ..models.sharded import let_go, parted_like
from .stream import Run


@contextmanager
def averaged(run: Run, network: nn.Module) -> Iterator[None]:
    """The network has the averaged values of its trained weights inside, if the run or its optimizer keeps any."""
    if run.averaged_weights is None and not run.schedule_free:
        yield
        return

    def put(parameters: list[nn.Parameter]) -> None:
        if run.averaged_weights is not None:
            run.averaged_weights.copy_to(parameters)
        for optimizer in run.schedule_free:
            optimizer.eval()

    with other_weights(run, network, put):
        try:
            yield
        finally:
            for optimizer in run.schedule_free:
                optimizer.train()


@contextmanager
def other_weights(run: Run, network: nn.Module, put: Callable[[list[nn.Parameter]], None]) -> Iterator[None]:
    """The trained weights have the values that ``put`` gives them inside, and their own again afterwards."""
    run.processes.settle()  # with weights in parts, what others ask of us is asked with the weights that they have
    let_go(network)
    with borrowed(parameters := list(trained_in(network).values())):
        put(parameters)
        let_go(network)
        try:
            yield
        finally:
            run.processes.settle()
    let_go(network)


@contextmanager
def borrowed(parameters: Sequence[Tensor]) -> Iterator[None]:
    """Parameters may be changed inside; afterwards they have their own values again."""
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
