"""Noise, and the image that the model makes of it: rollouts over the whole path, trained as straight ones (reflow).

A path from noise to image is curved where several images are still possible, and a sampler with few steps cuts its
corners. The model's own pairs of noise and image have the same images, but no choice any more: the straight way from
one to the other is what a second training learns, and a straight path needs few steps of any sampler. (Rectified flow,
Liu et al., arXiv 2209.03003.) Its images are as good as those that the model made, and no better.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Generator, Tensor

from ..device import moved, picked
from ..kinds import CONDITIONING, by_kind, flattened
from ..noisy_batch import NoisyBatch
from ..solvers import Conditioning, appended


def packed(latents: Tensor, noise: Tensor, conditioning: Conditioning) -> dict[str, Tensor]:
    """Pairs (n, ...) as :class:`Pairs` keeps them, by names."""
    return {"latents": latents, "noise": noise} | {CONDITIONING + name: value for name, value in conditioning.items()}


class Pairs:
    """As many pairs as there is room for, of items of one kind: image, noise, and what the network is told."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.tensors: dict[str, Tensor] = {}

    def __len__(self) -> int:
        return len(self.tensors["noise"]) if self.tensors else 0

    def add(self, more: Mapping[str, Tensor]) -> None:
        """Some more, :func:`packed`; what has no room is left out."""
        before = self.tensors or {name: value[:0] for name, value in more.items()}
        self.tensors = {name: appended([before[name], value])[: self.room] for name, value in more.items()}

    def put_into(self, batch: NoisyBatch, count: int, generator: Generator) -> NoisyBatch:
        """The batch, whose first ``count`` items are pairs drawn at random, each at the level of the item there.

        ``count`` is that of the global batch, of which some places are here; the pairs are the same everywhere.
        """
        drawn = torch.randint(len(self), (count,), generator=generator)[batch.share.first(count)]
        own = {name: moved(picked(value, drawn), batch.x.device) for name, value in self.tensors.items()}
        first, others = batch.items(slice(len(drawn))), batch.items(slice(len(drawn), None))
        pairs = replace(
            first,
            latents=own["latents"].to(first.latents.dtype),
            noise=own["noise"].to(first.noise.dtype),
            conditioning={name: own[CONDITIONING + name].to(value.dtype) for name, value in first.conditioning.items()},
            mask=None if first.mask is None else torch.ones_like(first.mask),
        )
        return pairs.at(first.timestep).followed_by(others)


class PairsByKind:
    """Pairs of each image size and kind of conditioning; those of one do not fit in a batch of another."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.pairs: dict[str, Pairs] = {}

    def of(self, kind: str) -> Pairs:
        return self.pairs.setdefault(kind, Pairs(self.room))

    def state_dict(self) -> dict[str, Tensor]:
        """All pairs, as tensors named ``<kind>:<what>``."""
        return flattened({kind: pairs.tensors for kind, pairs in self.pairs.items()}, ":")

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.pairs.clear()
        for kind, tensors in by_kind(state, ":").items():
            self.of(kind).tensors = tensors
