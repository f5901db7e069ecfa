"""The state of what is kept by kinds of items, as one dict of tensors: ``<kind>/<name>``, with a sign between them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

CONDITIONING = "conditioning/"
"""Begins the names of what the network is told, beside those of other tensors of the same items."""


def flattened(kinds: Mapping[str, Mapping[str, Tensor]], sign: str) -> dict[str, Tensor]:
    return {f"{kind}{sign}{name}": value for kind, tensors in kinds.items() for name, value in tensors.items()}


def by_kind(state: Mapping[str, Tensor], sign: str) -> dict[str, dict[str, Tensor]]:
    """The inverse of :func:`flattened`, in memory of its own, which is no file's."""
    kinds: dict[str, dict[str, Tensor]] = {}
    for name, value in state.items():
        kind, _, what = name.partition(sign)
        kinds.setdefault(kind, {})[what] = torch.clone(value)
    return kinds
