"""Rollouts under way, as small data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from torch import Tensor

from ..device import moved, picked
from ..kinds import CONDITIONING
from ..noisy_batch import NoisyBatch
from ..solvers import Conditioning, appended, has_masks

ON_CPU = ("grid", "steps", "age", "begun")


class Lives(NamedTuple):
    """How far chains are on their ways (see :class:`Chains`): known to every process of the chains of all processes."""

    grid: Tensor
    steps: Tensor
    age: Tensor
    begun: Tensor

    def items(self, index: slice | Tensor) -> Lives:
        return Lives(*(value[index] for value in self))

    def older(self, count: int) -> Lives:
        """One step later of the first ``count`` of them."""
        return self._replace(age=self.age + (torch.arange(len(self.age)) < count))

    def oldest(self, update: int) -> int:
        """For how many updates the oldest of them has lived."""
        return int((update - self.begun).max()) if len(self.begun) else 0


@dataclass(frozen=True)
class Chains:
    """Rollouts under way, one a row; chain i sits at place i of the batch. Whole numbers and levels are on the CPU."""

    latents: Tensor
    """Clean latents (n, C, H, W) of each chain's image."""
    noise: Tensor
    """The noise of its source state."""
    conditioning: Conditioning
    x: Tensor
    """Where it is now (n, C, H, W)."""
    fine: Tensor
    """Where the trajectory target's reference path is at its level (n, C, H, W); its source where there is none."""
    memory: Tensor
    """What its solver remembers (n, 1 + remembers, C, H, W): the state before the last step, then predictions, the
    newest first. Empty (n, 0, ...) for a solver that remembers nothing."""
    grid: Tensor
    """The timesteps of its way (n, longest + 2), float64."""
    steps: Tensor
    """How many solver steps the way has (n,), int64."""
    age: Tensor
    """How many of them are done (n,), int64."""
    begun: Tensor
    """The update in which it began (n,), int64."""
    mask: Tensor | None = None
    weight: Tensor | None = None

    def __len__(self) -> int:
        return len(self.age)

    @property
    def lives(self) -> Lives:
        return Lives(self.grid, self.steps, self.age, self.begun)

    def tensors(self) -> dict[str, Tensor]:
        """All that a chain is, by name, each (n, ...); :meth:`of` is the way back."""
        named = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "conditioning"}
        told = {CONDITIONING + name: value for name, value in self.conditioning.items()}
        return {name: value for name, value in named.items() if value is not None} | told

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Chains:
        told = {name: value for name, value in tensors.items() if name.startswith(CONDITIONING)}
        own = {name: value for name, value in tensors.items() if name not in told}
        return cls(conditioning={name.removeprefix(CONDITIONING): value for name, value in told.items()}, **own)

    def to(self, device: torch.device) -> Chains:
        """The same chains with their latents on another device."""
        tensors = self.tensors().items()
        return Chains.of({name: value if name in ON_CPU else moved(value, device) for name, value in tensors})

    def items(self, index: slice | Tensor) -> Chains:
        """Some chains; a tensor of their numbers is on the CPU."""
        return Chains.of({name: picked(value, index) for name, value in self.tensors().items()})

    def joined(self, others: Chains) -> Chains:
        """These chains, and then the others."""
        if len(others) == 0:
            return self
        more = others.tensors()
        return Chains.of({name: appended([value, more[name]]) for name, value in self.tensors().items()})

    def timestep(self, later: int = 0) -> Tensor:
        """Each chain's level (n,) now, or some steps later; beyond the clean end if the way goes there."""
        return self.grid.gather(1, (self.age + later).clamp(0, self.grid.shape[1] - 1)[:, None])[:, 0]


def kind_of(batch: NoisyBatch | Chains) -> str:
    """What chains must share with a batch to sit in it: sizes, what the network is told, masks and weights or none.

    How long a text is does not matter where a mask tells it: the shorter ones are padded.
    """
    first = 2 if has_masks(batch.conditioning) else 1
    told = {name: value.shape[first:] for name, value in batch.conditioning.items()}
    own = {"latents": batch.latents, "mask": batch.mask, "weight": batch.weight}
    sizes = {name: value.shape[1:] for name, value in own.items() if value is not None}
    parts = [("latents", sizes.pop("latents")), *told.items(), *sizes.items()]
    return ", ".join(f"{name} {'x'.join(map(str, size))}".strip() for name, size in parts)
