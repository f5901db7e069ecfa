"""What networks are told about items of a batch, where texts have unequal lengths.

Networks with a mask get them padded (:func:`join`). Those that ask for each item by itself, as ComfyUI's do, get one
tensor and each item's size (:func:`collate`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ..diffusion.solvers import Conditioning, appended

SIZES = ".sizes"
"""Beside a tensor whose items differ: their sizes (B, dimensions), 0 where an item has none."""


def collate(items: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """One batch of what single items are told, each tensor (1, ...).

    Equal items are put together and nothing else happens. Where they differ, zeros fill them up to the largest, and
    ``<name>.sizes`` says what is theirs; :func:`separate` cuts it out again.
    """
    names = list(dict.fromkeys(name for item in items for name in item))
    together: dict[str, Tensor] = {}
    for name in names:
        found = [item.get(name) for item in items]
        if len({None if value is None else value.shape for value in found}) == 1:
            together[name] = torch.cat([value for value in found if value is not None])
        else:
            together |= fill_up(name, found)
    return together


def fill_up(name: str, found: Sequence[Tensor | None]) -> dict[str, Tensor]:
    """The tensors of one name as one, and their sizes."""
    there = next(value for value in found if value is not None)
    sizes = [value.shape[1:] if value is not None else (0,) * (there.ndim - 1) for value in found]
    if there.ndim == 1 or any(len(size) != there.ndim - 1 for size in sizes):
        raise ValueError(f"the captions were encoded in different ways: not all have {name}, or the same kind of it")
    largest = [max(sides) for sides in zip(*sizes, strict=True)]
    filled = []
    for value, size in zip(found, sizes, strict=True):
        whole = there.new_zeros(1, *size) if value is None else value
        missing = [
            side for most, own in zip(reversed(largest), reversed(size), strict=True) for side in (0, most - own)
        ]
        filled.append(F.pad(whole, missing))
    return {name: torch.cat(filled), name + SIZES: torch.tensor(sizes, dtype=torch.int64)}


def separate(together: Mapping[str, Tensor], count: int) -> list[dict[str, Tensor]]:
    """What each of ``count`` items is told, each tensor (1, ...): the inverse of :func:`collate`.

    Waits for the device only where items differ.
    """
    items: list[dict[str, Tensor]] = [{} for _ in range(count)]
    for name, value in together.items():
        if name.endswith(SIZES):
            continue
        sizes = together[name + SIZES].tolist() if name + SIZES in together else [None] * count
        for place, size in enumerate(sizes):
            own = value[place : place + 1]
            if size is None:
                items[place][name] = own
            elif all(size):
                items[place][name] = own[(slice(None), *(slice(side) for side in size))]
    return items


def join(parts: Sequence[Conditioning]) -> Conditioning:
    """One batch of several: each tensor (B, L, ...) is padded with zeros to the longest, which is False in a mask."""
    return {name: appended([part[name] for part in parts]) for name in parts[0]}


def padded_texts(texts: Sequence[Tensor]) -> Conditioning:
    """Texts (L, D), each at its own length, as one ``text`` (B, longest, D) and its ``mask`` (B, longest)."""
    return join([{"text": text[None], "mask": text.new_ones(1, len(text), dtype=torch.bool)} for text in texts])


def texts_of(told: Conditioning) -> list[Tensor]:
    """The texts (L, D), each at its own length, as some networks take them: the inverse of :func:`padded_texts`."""
    return [text[:length] for text, length in zip(told["text"], lengths_of(told["mask"]), strict=True)]


def lengths_of(mask: Tensor) -> list[int]:
    """How long each text of a batch is, for a network that takes lists. Waits for the device, as they are sizes."""
    lengths: list[int] = mask.sum(1).tolist()
    return lengths
