"""A folder of images as a data set: captions beside the files, classes from sub-folders, masks from another folder."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from ...diffusion import seeds
from ..data import Batch, DatasetInfo, Group, no_class
from .ahead import together
from .beside import MaskFinder, controls_of
from .buckets import Size
from .caption_files import CaptionFinder
from .cropping import Place, fit, to_latents
from .folder import listing_of, repeats_and_words
from .index import index_of
from .options import ALPHA, FolderOptions, weight_of
from .pictures import looks_at, read_image, read_opacity

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageItem:
    path: Path
    caption: str
    label: int
    size: Size
    """Height and width as a person sees it."""
    bucket: Size
    """Height and width to which it is resized and cut: in several resolutions an image is an item of each."""
    mask: Path | None = None
    """The image whose brightness, or for its own path whose opacity, says where the loss looks."""
    repeats: int = 1
    """How often it comes for each time that another one does: kohya's folder names say so."""
    source: Path | None = None
    """The file that has its caption; None where none has."""
    encoding: str = "utf-8"
    """How that file was decoded."""
    control: Path | None = None
    """The picture of which this one is made, for a model that edits."""
    control_size: Size = (0, 0)
    """Its height and width."""

    @property
    def lost(self) -> float:
        """The share of the picture that is cut off, 0..1."""
        height, width = self.size
        scale = max(wanted / side for wanted, side in zip(self.bucket, self.size, strict=True))
        return 1 - self.bucket[0] * self.bucket[1] / (height * width * scale**2)


class ImageFolder:
    """Images below a folder. Unreadable ones are named and left out; if none is left, that is an error."""

    def __init__(self, folder: Path, *, indexes: Path | None = None, **options: Any) -> None:
        """``options`` are those of :class:`FolderOptions`.

        ``indexes`` is where it is kept from start to start what was found out about a large folder's files.
        """
        self.folder, self.indexes, self.options = folder, indexes, FolderOptions(**options)
        self.default_caption = self.options.default_caption.strip()
        self.resolutions = sorted({*self.options.resolutions}) or [self.options.size]
        self.by_resolution = [self.options.sizes(each) for each in self.resolutions]
        self.listing = listing_of(folder)
        paths = self._paths()
        control = self.options.control
        self.controls = controls_of(folder, paths, control) if control else {}
        self.classes, self.without_classes = classes_of(folder, paths)
        self.captions = CaptionFinder(self.listing)
        self.damaged: list[str] = []
        trained, kept = split(self._readable(paths), folder, self.options.validation)
        self.held_out = self._of(kept) if kept else None
        """Images that are not trained, in their middle and not mirrored; None where all are."""
        self._arrange(trained)

    def _paths(self) -> list[Path]:
        """The files of the images. Masks, and pictures that are to be changed, may lie in a folder among them."""
        masks, control = self.options.mask_folder, self.options.control
        beside = {each.resolve() for each in (masks, control) if isinstance(each, Path)}
        paths = [path for path in self.listing.pictures if not beside & {*path.resolve().parents}]
        if not paths:
            which = (
                "masks: give mask_folder" if control is None else "masks or to be changed: give mask_folder and control"
            )
            raise ValueError(f"all images in {str(self.folder)!r} are {which} a folder of its own")
        return paths

    def _readable(self, paths: list[Path]) -> list[ImageItem]:
        """The images that can be read; raises ValueError where there are none, or none has a mask though it should."""
        pictures, masks = list(self._items(paths)), self.options.mask_folder
        if not pictures:
            raise ValueError(f"none of the {len(paths)} images in {str(self.folder)!r} can be read; {self.damaged[0]}")
        if self.damaged:
            log.info("left out %d of %d images: %s", len(self.damaged), len(paths), "; ".join(self.damaged))
        if masks and not any(item.mask for item in pictures):
            what = "is transparent" if masks == ALPHA else f"has the name of a mask in {str(masks)!r}"
            raise ValueError(f"mask_folder: none of the images {what}; clear it to train everything")
        return pictures

    @property
    def buckets(self) -> list[Size]:
        """The sizes to which images are cut, in all resolutions."""
        return list(dict.fromkeys(size for sizes in self.by_resolution for size in sizes))

    def _of(self, pictures: Sequence[ImageItem]) -> ImageFolder:
        """Some of the images as a data set of their own, in which each comes once and always looks the same."""
        part = copy(self)
        part.options, part.held_out = replace(self.options, crop="center", flip=False, repeats=1), None
        part._arrange([replace(item, repeats=1) for item in pictures])
        return part

    def _arrange(self, pictures: Sequence[ImageItem]) -> None:
        """Hand out these images, each in all resolutions."""
        self.pictures = pictures
        """Each image once."""
        self.items = items = [replace(item, bucket=size) for item in pictures for size in self._sizes_of(item.size)]
        self.has_masks = any(item.mask for item in items)
        self.order = [number for number, item in enumerate(items) for _ in range(item.repeats)]
        """The item at each place of an epoch, before ``repeats``."""
        channels, repeats = len(self.options.color), self.options.repeats
        groups = groups_of([items[number].bucket for number in self.order], repeats)
        height, width = items[0].bucket
        only_size = height if not groups and height == width else None
        count, classes = len(self.order) * repeats, self.classes
        self.info = DatasetInfo(
            self.folder.name, count, channels, only_size, classes, self.without_classes, groups=groups
        )

    def _sizes_of(self, image: Size) -> list[Size]:
        """To what it is cut in each resolution; one that would not be enlarged comes once where it is the same."""
        sizes = (self.options.bucket(image, each) for each in self.by_resolution)
        return list(dict.fromkeys(sizes))

    def _items(self, paths: list[Path]) -> Iterator[ImageItem]:
        find_mask = MaskFinder(self.listing, self.options.mask_folder, index_of(self.folder, "masks", self.indexes))
        for path, found in zip(paths, looks_at(paths, index_of(self.folder, "looks", self.indexes)), strict=True):
            if found.damage:
                self.damaged.append(found.damage)
                continue
            caption, name = self.captions(path), path.relative_to(self.folder).parts[0]
            repeats, words = repeats_and_words(name) if self.options.kohya_folders and name != path.name else (1, "")
            yield ImageItem(
                path,
                caption.text if caption else self.default_caption or words,
                self.classes.index(name) if name in self.classes else 0,
                found.size,
                self._sizes_of(found.size)[-1],
                find_mask(path, found),
                repeats,
                caption.source if caption else None,
                caption.encoding if caption else "utf-8",
                *self.controls.get(path, ()),
            )

    def at(self, place: int) -> int:
        """Which item comes at a place of an epoch."""
        return self.order[place % len(self.order)]

    def batch(self, items: list[int], generators: Sequence[Generator]) -> Batch:
        chosen = [self.items[self.at(place)] for place in items]
        drawn = together(lambda number: self._draw(chosen[number], generators[number]), range(len(chosen)))
        return Batch(
            torch.stack([latents for latents, _ in drawn]),
            {"label": torch.tensor([item.label for item in chosen])} if self.info.classes else {},
            tuple(item.caption for item in chosen),
            torch.stack([mask for _, mask in drawn]) if self.has_masks else None,
            weight_of(self.options.loss_weight, len(chosen)),
            no_class if self.info.classes else None,
        )

    def _draw(self, item: ImageItem, generator: Generator) -> tuple[Tensor, Tensor]:
        place = self.options.place(generator)
        latents, mask = self.pixels(item, place), self.mask(item, place)
        return (latents.flip(-1), mask.flip(-1)) if self.options.mirrors(generator) else (latents, mask)

    def pixels(self, item: ImageItem, place: Place) -> Tensor:
        """The image (C, H, W) in -1..1, resized and cut to its bucket."""
        return self.options.pixels(item.path, item.bucket, place)

    def mask(self, item: ImageItem, place: Place) -> Tensor:
        """Where the loss looks (1, H, W), 0..1, cut as the image is; everywhere for an item without a mask."""
        if item.mask is None:
            return torch.ones(1, *item.bucket)
        mask = read_opacity(item.path) if item.mask == item.path else read_image(item.mask, "L", "black")
        height, width = item.size
        return (to_latents(fit(mask.resize((width, height)), item.bucket, place)) + 1) / 2


def split(items: list[ImageItem], folder: Path, share: float) -> tuple[list[ImageItem], list[ImageItem]]:
    """The images that are trained, and those that are kept back: that share of them, one at least.

    A picture's name below ``folder`` decides, so that a resumed run keeps the same ones back, and a folder that grows
    nearly the same. Raises ValueError where none would be left.
    """
    if not share:
        return items, []
    count = max(1, round(share * len(items)))
    if count >= len(items):
        raise ValueError(
            f"validation: {share:g} of {len(items)} image{'s' if len(items) > 1 else ''} leaves none to train on; "
            "lower it, or add images"
        )
    names = [item.path.relative_to(folder).with_suffix("").as_posix() for item in items]
    chosen = {*sorted(range(len(items)), key=lambda place: seeds.derive(0, "validation", names[place]))[:count]}
    trained = [item for place, item in enumerate(items) if place not in chosen]
    return trained, [items[place] for place in sorted(chosen)]


def classes_of(folder: Path, paths: list[Path]) -> tuple[tuple[str, ...], str]:
    """Names of the sub-folders, and nothing to say; none where images lie beside them, and why that is so.

    Who trains on captions does not care.
    """
    classes = tuple(sorted({path.relative_to(folder).parts[0] for path in paths if path.parent != folder}))
    stray = [path for path in paths if path.parent == folder]
    if classes and stray:
        more = f" and {len(stray) - 1} more" if len(stray) > 1 else ""
        return (), (
            f"{stray[0]} lies beside the class folders ({', '.join(classes)}), so it has no class: "
            f"move it{more} into one of them, or all images into one folder"
        )
    return classes, ""


def groups_of(buckets: Sequence[Size], repeats: int) -> tuple[Group, ...]:
    """The places of each bucket, whose batches come as often as it has places; none where all have one size."""
    members: dict[Size, list[int]] = defaultdict(list)
    for place, bucket in enumerate(buckets):
        members[bucket].append(place)
    if len(members) == 1:
        return ()
    return tuple(
        Group(f"{height}x{width}", tuple(places), len(places) * repeats, len(places))
        for (height, width), places in sorted(members.items())
    )
