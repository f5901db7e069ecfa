"""Captions of different lengths: kept at their own, and padded for a batch, with a mask that says where they end."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ...diffusion.solvers import Conditioning


def join(parts: Sequence[Conditioning]) -> Conditioning:
    """One batch of several: each tensor (B, L, ...) is padded with zeros to the longest, which is False in a mask."""
    return {name: torch.cat(padded([part[name] for part in parts])) for name in parts[0]}


def padded(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Tensors (B, L, ...) of one length L; those without a second side stay as they are."""
    if tensors[0].ndim < 2:
        return list(tensors)
    longest = max(tensor.shape[1] for tensor in tensors)
    return [F.pad(tensor, (*[0] * (2 * (tensor.ndim - 2)), 0, longest - tensor.shape[1])) for tensor in tensors]


def lengths_of(mask: Tensor) -> list[int]:
    """How long each text of a batch is, for a network that takes lists. Waits for the device, as they are sizes."""
    lengths: list[int] = mask.sum(1).tolist()
    return lengths
