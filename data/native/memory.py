"""A data set of latents and encoded texts that are in memory already, as ComfyUI's wires have them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from ...diffusion.solvers import Conditioning
from ...models.ragged import collate
from ..data import Batch, DatasetInfo, Group


@dataclass(frozen=True)
class Item:
    """One image, encoded."""

    latents: Tensor
    """(C, H, W) as the network sees them, float32, on the CPU."""
    told: Conditioning
    """What the network is told about it, each tensor (1, ...)."""
    caption: str = ""
    mask: Tensor | None = None
    """Where the loss looks (1, H, W), 0..1, of the latents' size; None = everywhere."""


class MemoryDataset:
    """Items in memory; each item's generator decides whether its text is dropped."""

    def __init__(
        self,
        name: str,
        items: Sequence[Item],
        family: str,
        *,
        dropped: Conditioning | None = None,
        dropout: float = 0.0,
        repeats: int = 1,
        colours: Tensor | None = None,
    ) -> None:
        """``dropped`` is what the network is told in place of an item's text, with the chance ``dropout``."""
        if dropout and dropped is None:
            raise ValueError("caption_dropout: nothing says what an empty caption is; set it to 0")
        self.items, self.dropped, self.dropout = list(items), dropped, dropout
        sizes = {item.latents.shape[-2:] for item in self.items}
        height, width = next(iter(sizes))
        self.info = DatasetInfo(
            name,
            len(self.items) * repeats,
            self.items[0].latents.shape[0],
            height if len(sizes) == 1 and height == width else None,
            family=family,
            groups=groups_of(self.items, repeats),
            colours=colours,
        )

    def batch(self, items: list[int], generators: Sequence[Generator]) -> Batch:
        chosen = [self.items[item % len(self.items)] for item in items]
        drawn = [torch.rand((), generator=generators[place]).item() < self.dropout for place in range(len(chosen))]
        told = [self.dropped if drop and self.dropped else item.told for item, drop in zip(chosen, drawn, strict=True)]
        masks = [item.mask for item in chosen]
        return Batch(
            torch.stack([item.latents for item in chosen]),
            collate(told),
            tuple("" if drop else item.caption for item, drop in zip(chosen, drawn, strict=True)),
            None
            if all(mask is None for mask in masks)
            else torch.stack([
                torch.ones(1, *item.latents.shape[-2:]) if item.mask is None else item.mask for item in chosen
            ]),
        )  # fmt: skip


def groups_of(items: Sequence[Item], repeats: int) -> tuple[Group, ...]:
    """The items of each size, which share batches; none where all have one size."""
    members: dict[tuple[int, int], list[int]] = defaultdict(list)
    for number, item in enumerate(items):
        height, width = item.latents.shape[-2:]
        members[height, width].append(number)
    if len(members) == 1:
        return ()
    return tuple(
        Group(f"{height}x{width}", tuple(numbers), len(numbers) * repeats, len(numbers))
        for (height, width), numbers in sorted(members.items())
    )


def cut_to(image: Tensor, multiple: int) -> Tensor:
    """The middle of an image (..., H, W) whose sides are multiples; raises ValueError where nothing is left."""
    height, width = (side // multiple * multiple for side in image.shape[-2:])
    if not height or not width:
        raise ValueError(f"images: one of {image.shape[-1]} x {image.shape[-2]} is smaller than {multiple} pixels")
    top, left = (image.shape[-2] - height) // 2, (image.shape[-1] - width) // 2
    return image[..., top : top + height, left : left + width]


def fit(mask: Tensor, size: Sequence[int]) -> Tensor:
    """A mask (1, H, W) in the size of its image (h, w)."""
    return mask if mask.shape[-2:] == torch.Size(size) else F.interpolate(mask[None].float(), tuple(size))[0]


def shrink(mask: Tensor, size: Sequence[int]) -> Tensor:
    """A mask (1, H, W) in the size of latents (h, w)."""
    return F.adaptive_avg_pool2d(mask[None].float(), (size[0], size[1]))[0]
