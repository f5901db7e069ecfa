"""Guidance in rollouts: walk as people sample, with classifier-free guidance (Ho and Salimans, arXiv 2207.12598)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..solvers import Conditioning, Model, has_masks, padded_to

TOLD = "guidance"
"""The name by which a guidance-distilled network is told its guidance, (B,)."""

WITHOUT = "without."
"""Begins the names, in the conditioning, of what is told in place of a caption where items differ in that."""


@dataclass(frozen=True)
class Guidance:
    """How a rollout is guided; off by default."""

    scale: float = 1.0
    """``uncond + scale (cond - uncond)``: the network is asked twice in one forward of twice as many items; 1 = off."""
    told: float = 0.0
    """The guidance that a guidance-distilled network is told in rollouts; 0 = the one that it is trained with."""
    negative: Conditioning = field(default_factory=dict)
    """Rows (1, ...) that stand for no caption or class."""

    @property
    def active(self) -> bool:
        return self.scale != 1 or self.told > 0

    def of(self, model: Model) -> Model:
        """The guided network."""
        if not self.active:
            return model

        def network(x: Tensor, timestep: Tensor, conditioning: Conditioning) -> Tensor:
            if self.told:
                conditioning = {**conditioning, TOLD: torch.full((len(x),), self.told, device=x.device)}
            if self.scale == 1:
                return model(x, timestep, conditioning)
            without = unconditional(conditioning, self.negative)
            both = {name: torch.cat([value, without[name]]) for name, value in conditioning.items()}
            return self.mixed(*model(torch.cat([x, x]), torch.cat([timestep, timestep]), both).chunk(2))

        return network

    def knowing(self, output: Tensor, model: Model) -> Model:
        """The guided network at a state whose plain output (B, ...) is known: it asks for the unconditional one."""
        if self.told or not self.active:
            return self.of(model)

        def network(x: Tensor, timestep: Tensor, conditioning: Conditioning) -> Tensor:
            without = model(x, timestep, unconditional(conditioning, self.negative))
            return self.mixed(output, without.to(output.dtype))

        return network

    def mixed(self, conditional: Tensor, without: Tensor) -> Tensor:
        return without + self.scale * (conditional - without)


UNGUIDED = Guidance()


def unconditional(conditioning: Conditioning, negative: Conditioning) -> Conditioning:
    """The same items without caption or class; what ``negative`` does not name, such as sizes, stays."""
    masked = has_masks(conditioning)

    def instead(name: str, value: Tensor) -> Tensor:
        row = conditioning.get(WITHOUT + name, negative.get(name))
        if row is None:
            return value
        row = as_long(row, value.shape, masked)
        return row.to(value.dtype).expand(len(value), *value.shape[1:])

    return {name: instead(name, value) for name, value in conditioning.items()}


def as_long(row: Tensor, shape: Sequence[int], masked: bool) -> Tensor:
    """Texts (B, L, ...), or tokens (B, tokenizers, L), made as long as those in a tensor of this shape.

    Padded with zeros where masks say how long each text is, else repeated, as CLIP's windows are. Raises ValueError
    where the text that stands for no caption is longer than the captions, or does not divide them.
    """
    side = next((side for side in range(1, row.ndim) if row.shape[side] != shape[side]), None)
    if side is None:
        return row
    own, length = row.shape[side], shape[side]
    if own > length or (not masked and length % own):
        raise ValueError(f"guidance: no caption is {own} tokens, a caption of this batch {length}: set guidance to 1")
    if not masked:
        return torch.cat([row] * (length // own), dim=side)
    return padded_to(row, length, side)
