"""An encoded data set: hands out latents and encoded captions that :mod:`encoding` has put into the cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from ...diffusion.rollouts.guidance import WITHOUT
from ...diffusion.solvers import Conditioning
from ...models.families.pretrained import CONTROL
from ..data import Batch, DatasetInfo, no_class
from ..reading.cropping import Place, corner_of
from ..reading.images import ImageFolder, ImageItem
from ..reading.options import weight_of
from . import colours
from .cache import Cache
from .encoders import Encoders
from .texts import concatenated

Text = str | tuple[str, str]
"""A caption; with the key of the picture beside which it is read, where the text encoder sees that."""

LATENTS, TEXT, MASKS = "latents", "text", "masks"
"""Folders of the cache."""


@dataclass(frozen=True)
class View:
    """One way in which an image is trained: cut to its bucket, and perhaps mirrored."""

    item: ImageItem
    place: Place
    flipped: bool
    key: str
    control: View | None = None
    """The picture that is to be changed, cut and mirrored alike."""

    def pixels(self, decode: Callable[[ImageItem, Place], Tensor]) -> Tensor:
        """The image (3, H, W) in -1..1; ``decode`` is :meth:`ImageFolder.pixels`."""
        pixels = decode(self.item, self.place)
        return pixels.flip(-1) if self.flipped else pixels

    @property
    def corner(self) -> tuple[int, int]:
        """How many pixels of the resized image lie above and to the left of it."""
        top, left = corner_of(self.item.size, self.item.bucket, self.place)
        if self.flipped:  # what was cut off at the right lies at the left now
            left = corner_of(self.item.size, self.item.bucket, (1 - self.place[0], self.place[1]))[1]
        return top, left


@dataclass(frozen=True)
class Entry:
    """One image of an encoded data set."""

    views: tuple[View, ...]
    """As it is, and mirrored if it may be."""
    mask: str
    """Key of its mask; empty where everything counts."""
    captions: tuple[str, ...]
    """Of which one is drawn each time."""
    label: int


def text_of(encoders: Encoders, caption: str, view: View) -> Text:
    """What is encoded for a caption of a picture."""
    return (caption, view.control.key) if encoders.sees_control and view.control else caption


def encoded_info(pictures: DatasetInfo, encoders: Encoders, moments: Tensor) -> DatasetInfo:
    """What is known of pictures once they are encoded; ``moments`` (:func:`colours.moments`) are those of all."""
    return replace(
        pictures,
        channels=encoders.channels,
        size=pictures.size // encoders.factor if pictures.size else None,
        classes=pictures.classes if encoders.classes else (),
        without_classes="",
        family=encoders.family,
        colours=colours.fit(moments),
    )


class EncodedDataset:
    """Latents and encoded captions from the cache; each item's generator decides its flip, caption and dropout."""

    def __init__(
        self,
        images: ImageFolder,
        encoders: Encoders,
        cache: Cache,
        entries: list[Entry],
        text_keys: dict[Text, str],
        dropout: float,
    ) -> None:
        self.encoders, self.cache, self.entries = encoders, cache, entries
        self.text_keys, self.dropout = text_keys, dropout
        self.held_out: EncodedDataset | None = None
        """Images that are not trained, for validation."""
        self.at, self.has_masks, self.loss_weight = images.at, images.has_masks, images.options.loss_weight
        # Added up as they come: each is a mapped file as long as it is held, and Linux maps 65,530 at most.
        each = (cache.load_one(LATENTS, entry.views[0].key, "moments") for entry in entries)
        moments = sum(each, start=torch.zeros(()))
        self.info = encoded_info(images.info, encoders, moments)

    def batch(self, items: list[int], generators: Sequence[Generator]) -> Batch:
        parts = [self._draw(self.entries[self.at(item)], generators[place]) for place, item in enumerate(items)]
        return Batch(
            torch.stack([part.latents for part in parts]),
            concatenated([part.conditioning for part in parts]),
            tuple(caption for part in parts for caption in part.captions),
            torch.stack([part.mask for part in parts if part.mask is not None]) if self.has_masks else None,
            weight_of(self.loss_weight, len(items)),
            self.no_caption,
        )

    def no_caption(self) -> Conditioning:
        """What the network is told where there is no caption: a batch of one; nothing where each item has its own."""
        if self.encoders.sees_control:
            return {}
        return no_class() if self.encoders.classes else self.cache.load(TEXT, self.text_keys[""])

    def _draw(self, entry: Entry, generator: Generator) -> Batch:
        """One item, its latents and mask without a batch dimension."""
        mirror, order, drop = torch.rand(3, generator=generator).tolist()
        view = entry.views[int(mirror * len(entry.views))]
        dropped = drop < self.dropout
        caption = "" if dropped else entry.captions[int(order * len(entry.captions))]
        if self.encoders.classes:
            told = {"label": torch.tensor([self.encoders.classes if dropped else entry.label])}
        else:
            told = self._told(caption, view)
        told |= self.encoders.describe_size(view.item.size, view.corner, view.item.bucket)
        latents = self.cache.load_one(LATENTS, view.key, "latents")
        return Batch(latents, told, (caption,), self._mask(entry, view, latents.shape[-2:]) if self.has_masks else None)

    def _told(self, caption: str, view: View) -> Conditioning:
        """What the network is told about a caption, and shown."""
        told = self.cache.load(TEXT, self.text_keys[text_of(self.encoders, caption, view)])
        if view.control is None:
            return told
        told[CONTROL] = self.cache.load_one(LATENTS, view.control.key, "latents")[None]
        if self.encoders.sees_control:
            without = self.cache.load(TEXT, self.text_keys[text_of(self.encoders, "", view)])
            told |= {WITHOUT + name: value for name, value in without.items()}
        return told

    def _mask(self, entry: Entry, view: View, size: torch.Size) -> Tensor:
        if not entry.mask:
            return torch.ones(1, *size)
        mask = self.cache.load_one(MASKS, entry.mask, "mask").float() / 255
        return mask.flip(-1) if view.flipped else mask
