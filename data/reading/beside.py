"""Pictures beside a folder's images: their masks, and those of which they are made, for a model that edits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from .buckets import Size
from .folder import MASK, MASK_ALONE, Listing, listing_of, look_into, printable
from .options import ALPHA, Masks
from .pictures import Look, looks_at


class MaskFinder:
    """The mask of an image: of the same path below the mask folder, up to the suffix; or the image's own opacity.

    Without a mask folder, what OneTrainer has beside it: a-masklabel.png.
    """

    def __init__(self, listing: Listing, masks: Masks, index: Path | None = None) -> None:
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
