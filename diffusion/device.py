"""How numbers come to the device, and rows are taken there."""

from __future__ import annotations

import torch
from torch import Tensor


def moved(values: Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """The values on the device, in another dtype if one is named, without waiting where that is safe."""
    # Not on MPS: a copy there reads memory of the CPU that may be freed and used again by then, and the numbers are
    # silently wrong (pytorch issue 189690). CUDA has read it, or put it aside, before the call returns.
    return values.to(device, dtype or values.dtype, non_blocking=device.type == "cuda")


def picked(values: Tensor, index: slice | Tensor) -> Tensor:
    """Some rows (n, ...); a tensor of their numbers (n,) is on the CPU, whatever device the values are on."""
    return values[index if isinstance(index, slice) else moved(index, values.device)]
