"""A folder of images as a data set: captions beside the files, classes from sub-folders, masks from another folder."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import PIL
import torch
from PIL import Image, ImageOps
from torch import Generator, Tensor

from ...diffusion import seeds
from ..data import Batch, DatasetInfo, Group, no_class
from .ahead import together
from .buckets import MOST_OBLONG, Size, bucket_for, bucket_sizes
from .caption_files import CaptionFinder
from .folder import MASK, MASK_ALONE, WITH_PLUGIN, Listing, listing_of, look_into, printable, repeats_and_words
from .index import index_of, looked_up

log = logging.getLogger(__name__)

ALPHA = "alpha"
"""In place of a mask folder: each image's own transparency is its mask."""

Crop = Literal["center", "random"]

Place = tuple[float, float]
"""Where a cut lies, across and down: 0 = at the left or top, 1 = at the right or bottom."""


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


def read_image(path: Path, mode: str = "RGB", background: str = "white", opened: BytesIO | None = None) -> Image.Image:
    """The picture as a person sees it: upright (EXIF), transparency laid over ``background``, first frame only.

    ``opened`` is read instead of the path where it is given. Raises ValueError, naming the file, if it is damaged or
    not an image.
    """
    try:
        with Image.open(opened or path) as file:
            return eight_bit(ImageOps.exif_transpose(file), background).convert(mode)
    except Exception as error:  # a damaged file makes Pillow raise almost anything
        raise ValueError(unreadable(path, error)) from error


def eight_bit(picture: Image.Image, background: str) -> Image.Image:
    """The picture without its transparency, and with 0..255 where it has 0..65535, which Pillow would cut off."""
    if picture.mode == "F":  # as most programs have them, 0..1; Pillow takes them for 0..255
        pixels = np.nan_to_num(np.asarray(picture))
        return Image.fromarray((pixels * (255 if pixels.max() <= 1 else 1)).clip(0, 255).round().astype(np.uint8))
    if picture.mode.startswith("I"):
        return Image.fromarray((np.asarray(picture).clip(0, 65535) / 257).round().astype(np.uint8))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, background), picture)
    return picture


def read_opacity(path: Path) -> Image.Image:
    """The picture's alpha channel, upright; raises ValueError, naming the file, if it is damaged."""
    try:
        with Image.open(path) as file:
            return ImageOps.exif_transpose(file).convert("RGBA").getchannel("A")
    except Exception as error:  # a damaged file makes Pillow raise almost anything
        raise ValueError(unreadable(path, error)) from error


def unreadable(path: Path, error: Exception) -> str:
    """One line on a file that Pillow could not read."""
    named = printable(str(path))
    if isinstance(error, Image.DecompressionBombError):
        most = round(2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6)
        return f"cannot read {named}: it has more than {most} megapixels; make it smaller, for training cuts it anyway"
    remedy = " (convert it to JPEG or PNG, or install Pillow's plug-in)" if path.suffix.lower() in WITH_PLUGIN else ""
    told = "cannot identify image file" if isinstance(error, PIL.UnidentifiedImageError) else str(error)
    if isinstance(error, PermissionError):  # the system's words name the file once more
        told = "permission denied"
    return f"cannot read {named}: {told or type(error).__name__}{remedy}"


class Look(NamedTuple):
    """What is known of an image file before it is used."""

    damage: str = ""
    """What is wrong with it; empty if nothing is."""
    size: Size = (0, 0)
    """Height and width as a person sees it."""
    is_transparent: bool = False


def look(path: Path, opened: BytesIO | None = None) -> Look:
    """Read all of an image file, or of what is given instead, but decode a JPEG at an eighth of its size."""
    try:
        with Image.open(opened or path) as file:
            size, transparent = file.size, file.has_transparency_data
            # The orientation is asked for first, and not of TIFF: Pillow turns its size by itself.
            turned = file.format != "TIFF" and file.getexif().get(0x0112, 1) in (5, 6, 7, 8)
            file.draft(None, (1, 1))
            # Read to its end: Pillow's verify() overlooks files that were cut short, a step would not.
            eight_bit(ImageOps.exif_transpose(file), "white").convert("RGB")
    except Exception as error:  # a damaged file makes Pillow raise almost anything
        return Look(unreadable(path, error))
    return Look("", size if turned else size[::-1], transparent)


def looks_at(paths: Sequence[Path], index: Path | None = None) -> list[Look]:
    """:func:`look` of each, kept in the file ``index``; what is damaged is looked at again the next time."""
    found = looked_up(paths, look, lambda seen: not seen.damage, index, f"looks by Pillow {PIL.__version__}")
    return [Look(damage, tuple(size), transparent) for damage, size, transparent in found]


def place_of(crop: Crop, generator: Generator) -> Place:
    """Where to cut: in the middle, or anywhere."""
    if crop == "center":
        return 0.5, 0.5
    across, down = torch.rand(2, generator=generator).tolist()
    return across, down


def fit(picture: Image.Image, size: Size, place: Place) -> Image.Image:
    """Resize the picture until it just covers ``size``, and cut off what is over."""
    height, width = size
    return ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS, centering=place)


def corner_of(original: Size, size: Size, place: Place) -> tuple[int, int]:
    """How many pixels :func:`fit` cuts off at the top and at the left of the resized picture."""
    scale = max(wanted / side for wanted, side in zip(size, original, strict=True))
    over = [max(0, round(side * scale) - wanted) for wanted, side in zip(size, original, strict=True)]
    return round(over[0] * place[1]), round(over[1] * place[0])


def to_latents(picture: Image.Image) -> Tensor:
    """Pixels as latents (C, H, W) in -1..1."""
    pixels = torch.from_numpy(np.asarray(picture, dtype=np.float32))
    return pixels.reshape(picture.height, picture.width, -1).permute(2, 0, 1) / 127.5 - 1


def to_picture(latents: Tensor) -> Image.Image:
    """The inverse of :func:`to_latents`, for three channels."""
    pixels = ((latents + 1) * 127.5).round().clamp(0, 255).byte()
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())


class ImageFolder:
    """Images below a folder. Unreadable ones are named and left out; if none is left, that is an error."""

    def __init__(
        self,
        folder: Path,
        *,
        size: int = 64,
        repeats: int = 1,
        crop: Crop = "center",
        flip: bool = False,
        color: Literal["RGB", "L"] = "RGB",
        background: str = "white",
        buckets: bool = False,
        upscale: bool = True,
        mask_folder: Path | Literal["alpha"] | None = None,
        default_caption: str = "",
        loss_weight: float = 1.0,
        max_aspect_ratio: float = MOST_OBLONG,
        kohya_folders: bool = True,
        control: Path | None = None,
        validation: float = 0.0,
        resolutions: Sequence[int] = (),
        indexes: Path | None = None,
    ) -> None:
        """``resolutions`` are the sizes in which each image comes, where it shall come in others than ``size``.

        ``validation`` is the share of the images, 0..1, that is kept back as ``held_out``.

        ``indexes`` is where it is kept from start to start what was found out about a large folder's files.
        """
        self.folder, self.mask_folder, self.control, self.indexes = folder, mask_folder, control, indexes
        self.crop, self.flip, self.color, self.background = crop, flip, color, background
        self.repeats, self.loss_weight, self.default_caption = repeats, loss_weight, default_caption.strip()
        self.max_aspect_ratio, self.kohya_folders = max_aspect_ratio, kohya_folders
        self.resolutions = sorted({*resolutions}) or [size]
        self.by_resolution = [
            bucket_sizes(each, max_aspect_ratio) if buckets else [(each, each)] for each in self.resolutions
        ]
        self.oblong, self.upscale = buckets, upscale or not buckets
        self.listing = listing_of(folder)
        paths = [path for path in self.listing.pictures if not self._is_beside(path)]
        if not paths:
            which = (
                "masks: give mask_folder" if control is None else "masks or to be changed: give mask_folder and control"
            )
            raise ValueError(f"all images in {str(folder)!r} are {which} a folder of its own")
        self.controls = controls_of(folder, paths, control) if control else {}
        classes, without_classes = classes_of(folder, paths)
        self.captions = CaptionFinder(self.listing)
        self.damaged: list[str] = []
        pictures = list(self._readable(paths, classes))
        if not pictures:
            raise ValueError(f"none of the {len(paths)} images in {str(folder)!r} can be read; {self.damaged[0]}")
        if self.damaged:
            log.info("left out %d of %d images: %s", len(self.damaged), len(paths), "; ".join(self.damaged))
        if mask_folder and not any(item.mask for item in pictures):
            what = "is transparent" if mask_folder == ALPHA else f"has the name of a mask in {str(mask_folder)!r}"
            raise ValueError(f"mask_folder: none of the images {what}; clear it to train everything")
        self.classes, self.without_classes = classes, without_classes
        trained, kept = split(pictures, folder, validation)
        self.held_out = self._of(kept) if kept else None
        """Images that are not trained, in their middle and not mirrored; None where all are."""
        self._arrange(trained)

    @property
    def buckets(self) -> list[Size]:
        """The sizes to which images are cut, in all resolutions."""
        return list(dict.fromkeys(size for sizes in self.by_resolution for size in sizes))

    def _of(self, pictures: Sequence[ImageItem]) -> ImageFolder:
        """Some of the images as a data set of their own, in which each comes once and always looks the same."""
        part = copy(self)
        part.crop, part.flip, part.repeats, part.held_out = "center", False, 1, None
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
        channels = len(self.color)
        groups = groups_of([items[number].bucket for number in self.order], self.repeats)
        height, width = items[0].bucket
        only_size = height if not groups and height == width else None
        count, classes = len(self.order) * self.repeats, self.classes
        self.info = DatasetInfo(
            self.folder.name, count, channels, only_size, classes, self.without_classes, groups=groups
        )

    def _sizes_of(self, image: Size) -> list[Size]:
        """To what it is cut in each resolution; one that would not be enlarged comes once where it is the same."""
        sizes = (bucket_for(image, each, self.upscale, self.max_aspect_ratio) for each in self.by_resolution)
        return list(dict.fromkeys(sizes))

    def _is_beside(self, path: Path) -> bool:
        """Masks, and pictures that are to be changed, may lie in a folder among the images."""
        beside = {each.resolve() for each in (self.mask_folder, self.control) if isinstance(each, Path)}
        return bool(beside & {*path.resolve().parents})

    def _readable(self, paths: list[Path], classes: tuple[str, ...]) -> Iterator[ImageItem]:
        find_mask = MaskFinder(self.listing, self.mask_folder, index_of(self.folder, "masks", self.indexes))
        for path, found in zip(paths, looks_at(paths, index_of(self.folder, "looks", self.indexes)), strict=True):
            if found.damage:
                self.damaged.append(found.damage)
                continue
            caption, name = self.captions(path), path.relative_to(self.folder).parts[0]
            repeats, words = repeats_and_words(name) if self.kohya_folders and name != path.name else (1, "")
            yield ImageItem(
                path,
                caption.text if caption else self.default_caption or words,
                classes.index(name) if name in classes else 0,
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
            weight_of(self.loss_weight, len(chosen)),
            no_class if self.info.classes else None,
        )

    def _draw(self, item: ImageItem, generator: Generator) -> tuple[Tensor, Tensor]:
        place = place_of(self.crop, generator)
        latents, mask = self.pixels(item, place), self.mask(item, place)
        flipped = self.flip and bool(torch.rand(1, generator=generator) < 0.5)
        return (latents.flip(-1), mask.flip(-1)) if flipped else (latents, mask)

    def pixels(self, item: ImageItem, place: Place) -> Tensor:
        """The image (C, H, W) in -1..1, resized and cut to its bucket."""
        return to_latents(fit(read_image(item.path, self.color, self.background), item.bucket, place))

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


def weight_of(loss_weight: float, count: int) -> Tensor | None:
    """The weight (count,) of each item's loss; None where all count alike."""
    return None if loss_weight == 1 else torch.full((count,), loss_weight)


class MaskFinder:
    """The mask of an image: of the same path below the mask folder, up to the suffix; or the image's own opacity.

    Without a mask folder, what OneTrainer has beside it: a-masklabel.png.
    """

    def __init__(self, listing: Listing, masks: Path | Literal["alpha"] | None, index: Path | None = None) -> None:
        self.folder, self.masks = listing.folder, masks
        self.found: Mapping[Path, Path] = {}
        if masks is None:
            self.found = {path.relative_to(self.folder).with_suffix(""): mask for path, mask in listing.masks.items()}
        elif isinstance(masks, Path):
            self.found = masks_in(masks)
        if damages := [seen.damage for seen in looks_at([*self.found.values()], index) if seen.damage]:
            raise ValueError(f"{'mask' if masks is None else 'mask_folder'}: {damages[0]}")

    def __call__(self, image: Path, seen: Look) -> Path | None:
        if self.masks == ALPHA:
            return image if seen.is_transparent else None
        return self.found.get(image.relative_to(self.folder).with_suffix(""))


def masks_in(folder: Path) -> dict[Path, Path]:
    """The masks of a folder by the paths of their images in another; raises ValueError where there are none."""
    try:
        listing = look_into(folder)
        by_end = (*listing.left_out.get(MASK_ALONE, ()), *listing.masks.values())
        if not by_end:
            listing = listing_of(folder)  # which says what there is instead
    except ValueError as error:
        raise ValueError(f"mask_folder: {error}") from error
    found = {path.relative_to(folder).with_suffix(""): path for path in (*listing.pictures, *by_end)}
    return {name.with_name(name.name.removesuffix(MASK)): path for name, path in found.items()}


def controls_of(folder: Path, images: Sequence[Path], control: Path) -> dict[Path, tuple[Path, Size]]:
    """For each of the images the picture of the same name, up to the suffix, below ``control``, and its size.

    Raises ValueError, naming them, where images have none, or one that cannot be read.
    """
    try:
        listing = listing_of(control)
    except ValueError as error:
        raise ValueError(f"control: {error}") from error
    found = {path.relative_to(control).with_suffix(""): path for path in listing.pictures}
    pairs = {image: found.get(image.relative_to(folder).with_suffix("")) for image in images}
    if missing := [image.name for image, picture in pairs.items() if picture is None]:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        names = ", ".join(map(printable, missing[:3]))
        raise ValueError(f"control: {str(control)!r} has no picture of the same name for {names}{more}; add it")
    chosen = {image: picture for image, picture in pairs.items() if picture is not None}
    looks = looks_at(list(chosen.values()), None)
    if damages := [seen.damage for seen in looks if seen.damage]:
        raise ValueError(f"control: {damages[0]}")
    return {image: (picture, seen.size) for (image, picture), seen in zip(chosen.items(), looks, strict=True)}
