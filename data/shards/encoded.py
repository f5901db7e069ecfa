"""Encoded shards as a data set: latents and captions read by offset from what :mod:`encoding` has made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor

from ...diffusion.solvers import Conditioning
from ..data import Batch, no_class
from ..encodings.encoded import View, encoded_info
from ..encodings.encoders import Encoders
from ..encodings.texts import concatenated
from ..reading.options import weight_of
from .images import ShardImages
from .store import Arrays, Places, Store


class Drawn(NamedTuple):
    """What a generator has chosen for one item."""

    number: int
    view: int
    """0 = as it is, 1 = mirrored."""
    caption: int | None
    """Which of its captions; None = none, being dropped."""


class EncodedShards:
    """The draws are those of :class:`EncodedDataset`: a generator decides an item's flip, caption and dropout."""

    def __init__(
        self,
        images: ShardImages,
        encoders: Encoders,
        store: Store,
        latent_keys: Sequence[str],
        text_keys: Sequence[str],
        dropout: float,
    ) -> None:
        """``text_keys`` is empty for a model that knows classes."""
        self.images, self.encoders, self.dropout = images, encoders, dropout
        self.at, self.loss_weight = images.at, images.options.loss_weight
        arrays = [read(store, key) for key in latent_keys]
        self.latents = Places(store.shards(latent_keys), arrays)
        self.cut = np.concatenate([each["cut"] for each in arrays])
        """Where each picture was cut (pictures, 2), across and down."""
        self.texts = Texts(store, text_keys) if text_keys else None
        moments = sum((torch.from_numpy(each["moments"]) for each in arrays), torch.zeros(()))
        self.info = encoded_info(images.info, encoders, moments)

    def batch(self, items: list[int], generators: Sequence[Generator]) -> Batch:
        drawn = [self._draw(self.at(item), generators[place]) for place, item in enumerate(items)]
        shard_of = self.images.index.shard_of
        latents = self.latents.read([(shard_of(one.number), (one.number, one.view)) for one in drawn])
        told, captions = self._told(drawn)
        return Batch(
            torch.stack([tensors["latents"] for tensors, _ in latents]),
            concatenated([{**said, **self._size(one)} for said, one in zip(told, drawn, strict=True)]),
            tuple(captions),
            None,
            weight_of(self.loss_weight, len(items)),
            self.no_caption,
        )

    def no_caption(self) -> Conditioning:
        """What the network is told where there is no caption: a batch of one."""
        return no_class() if self.texts is None else self.texts.without()

    def _draw(self, number: int, generator: Generator) -> Drawn:
        mirror, order, drop = torch.rand(3, generator=generator).tolist()
        view = int(mirror * self.latents.start.shape[1])
        captions = 1 if self.texts is None else self.texts.count_of(number)
        return Drawn(number, view, None if drop < self.dropout else int(order * captions))

    def _told(self, drawn: Sequence[Drawn]) -> tuple[list[Conditioning], list[str]]:
        """What the network is told about captions or classes, and the captions themselves."""
        if self.texts is not None:
            found = self.texts.read(
                [(self.images.index.shard_of(one.number), one.number, one.caption) for one in drawn]
            )
            return [tensors for tensors, _ in found], [caption for _, caption in found]
        labels = [
            self.encoders.classes if one.caption is None else int(self.images.index.rows[one.number]["label"])
            for one in drawn
        ]
        return [{"label": torch.tensor([label])} for label in labels], [""] * len(drawn)

    def _size(self, one: Drawn) -> Conditioning:
        across, down = self.cut[one.number].tolist()
        view = View(self.images.item(one.number), (across, down), bool(one.view), "")
        return self.encoders.describe_size(view.item.size, view.corner, view.item.bucket)


class Texts:
    """Encoded captions: of each shard its own, those that are equal once, the empty one first."""

    def __init__(self, store: Store, keys: Sequence[str]) -> None:
        arrays = [read(store, key) for key in keys]
        self.places = Places(store.shards(keys), arrays)
        self.count = np.concatenate([each["count"] for each in arrays])
        """How many captions a picture has (pictures,)."""
        self.first = np.cumsum(self.count, dtype=np.int64) - self.count
        """Where a picture's are in ``which`` (pictures,)."""
        self.which = np.concatenate([each["which"] for each in arrays])
        """The number of each caption in its shard."""

    def count_of(self, number: int) -> int:
        return int(self.count[number])

    def read(self, wanted: Sequence[tuple[int, int, int | None]]) -> list[tuple[dict[str, Tensor], str]]:
        """Of each (shard, picture, caption of it); the empty caption for None."""
        local = [
            0 if caption is None else int(self.which[self.first[number] + caption]) for _, number, caption in wanted
        ]
        places = [
            (shard, int(self.places.starts[shard]) + place) for (shard, _, _), place in zip(wanted, local, strict=True)
        ]
        return self.places.read(places)

    def without(self) -> Conditioning:
        ((tensors, _),) = self.places.read([(0, 0)])
        return tensors


def read(store: Store, key: str) -> Arrays:
    arrays = store.arrays(key)
    if arrays is None:
        raise ValueError(f"{store.folder / key} is gone from the cache: run Encode Dataset again")
    return arrays
