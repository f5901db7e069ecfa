"""Shards of pictures as a data set, with the options and the draws of a folder's; each is read when it is asked for."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from ..data import Batch, DatasetInfo, Group, Numbers, no_class
from ..reading.ahead import together
from ..reading.buckets import Size
from ..reading.cropping import Place
from ..reading.images import ImageItem
from ..reading.options import ImageOptions, weight_of
from .index import Index, base_name, classes_of, names_in

log = logging.getLogger(__name__)


class ShardImages:
    """The pictures of an index, numbered in the order of the shards and of the files in them."""

    def __init__(self, index: Index, **options: Any) -> None:
        """``options`` are those of :class:`ImageOptions`."""
        self.index, self.options = index, ImageOptions(**options)
        self.default_caption, repeats = self.options.default_caption.strip(), self.options.repeats
        self.buckets = self.options.sizes(self.options.size)
        self.sizes, self.bucket_of = sorted_in(index.rows, self.buckets, self.options)
        self.left_out = sum(found.left_out for found in index.found)
        if said := list(names_in(index)):
            log.warning("shards: %d pictures are left out: %s", self.left_out, "; ".join(said[:3]))
        classes, without_classes = classes_of(index)
        groups, (height, width) = groups_of(self.sizes, self.bucket_of, repeats), self.sizes[0]
        self.info = DatasetInfo(
            base_name(index.shards.paths[0]),
            len(index) * repeats,
            len(self.options.color),
            height if not groups and height == width else None,
            classes,
            without_classes,
            groups=groups,
        )

    def at(self, place: int) -> int:
        """Which picture comes at a place of an epoch."""
        return place % len(self.index)

    def item(self, number: int) -> ImageItem:
        """What is known of a picture, without its caption; its path is its shard."""
        row = self.index.rows[number]
        return ImageItem(
            Path(self.index.shards.paths[self.index.shard_of(number)]),
            "",
            int(row["label"]),
            (int(row["height"]), int(row["width"])),
            self.sizes[self.bucket_of[number]],
        )

    def read(self, numbers: Sequence[int]) -> list[bytes]:
        """The files of these pictures, asked for together."""
        return self.index.shards.read([self.index.picture(number) for number in numbers])

    def captions(self, numbers: Sequence[int]) -> list[str]:
        return self.index.captions(list(numbers), self.default_caption)

    def batch(self, items: list[int], generators: Sequence[Generator]) -> Batch:
        chosen = [self.at(place) for place in items]
        files = self.read(chosen)
        drawn = together(lambda place: self._draw(chosen[place], files[place], generators[place]), range(len(chosen)))
        return Batch(
            torch.stack(drawn),
            {"label": torch.tensor(self.index.rows["label"][chosen].tolist())} if self.info.classes else {},
            tuple(self.captions(chosen)),
            None,
            weight_of(self.options.loss_weight, len(chosen)),
            no_class if self.info.classes else None,
        )

    def _draw(self, number: int, data: bytes, generator: Generator) -> Tensor:
        latents = self.pixels(number, data, self.options.place(generator))
        return latents.flip(-1) if self.options.mirrors(generator) else latents

    def pixels(self, number: int, data: bytes, place: Place) -> Tensor:
        """The picture (C, H, W) in -1..1 from the bytes of its file, resized and cut to its bucket."""
        item = self.item(number)
        try:
            return self.options.pixels(item.path, item.bucket, place, BytesIO(data))
        except ValueError as error:
            raise ValueError(f"{self.index.path(number).name}: {error}") from error


def sorted_in(rows: np.ndarray, buckets: list[Size], options: ImageOptions) -> tuple[list[Size], np.ndarray]:
    """The sizes to which pictures are cut, sorted, and the place of each picture's among them (pictures,), uint16.

    The rule is asked once for each size that pictures have.
    """
    joined = rows["height"].astype(np.uint32) << 16 | rows["width"]
    shapes, which = np.unique(joined, return_inverse=True)
    chosen = [options.bucket(divmod(shape, 1 << 16), buckets) for shape in shapes.tolist()]
    sizes = sorted({*chosen})
    places = {size: place for place, size in enumerate(sizes)}
    return sizes, np.array([places[size] for size in chosen], np.uint16)[which]


def groups_of(sizes: list[Size], bucket_of: np.ndarray, repeats: int) -> tuple[Group, ...]:
    """The pictures of each bucket, whose batches come as often as it has pictures; none where all have one size."""
    if len(sizes) == 1:
        return ()
    order = np.argsort(bucket_of, kind="stable").astype(np.uint32)
    ends = np.cumsum(np.bincount(bucket_of, minlength=len(sizes))).tolist()
    return tuple(
        Group(f"{height}x{width}", Numbers(order[start:end]), (end - start) * repeats, end - start)
        for (height, width), start, end in zip(sizes, [0, *ends[:-1]], ends, strict=True)
    )
