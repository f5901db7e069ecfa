"""What a training costs: how often the network is asked, and the time from its first question to its last."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from comfyui_rollout.models.families import FAMILIES
from comfyui_rollout.models.model import Model
from torch import Tensor

BACKWARD = 2
"""A backward pass costs about twice its forward."""


@dataclass
class Cost:
    forwards: int = 0
    """Of one sample each; one that is trained counts three, with its backward."""
    seconds: float = 0.0
    """Processor time, which other programs on the machine disturb little; on a GPU the clock's."""


@contextmanager
def metered(device: str = "cpu") -> Iterator[Cost]:
    """Counts what every new network is asked inside: what was really trained and rolled out."""
    cost, began = Cost(), 0.0
    now = time.process_time if device == "cpu" else time.perf_counter
    plain = {family: family.__call__ for family in FAMILIES.values()}

    def counting(family: type[Model]) -> None:
        def call(self: Model, x: Tensor, timestep: Tensor, conditioning: dict[str, Tensor]) -> Tensor:
            nonlocal began
            began = began or now()
            cost.forwards += len(x) * (1 + BACKWARD * torch.is_grad_enabled())
            output = plain[family](self, x, timestep, conditioning)
            cost.seconds = now() - began
            return output

        family.__call__ = call  # type: ignore[method-assign]

    for family in plain:
        counting(family)
    try:
        yield cost
    finally:
        for family, call in plain.items():
            family.__call__ = call  # type: ignore[method-assign]
