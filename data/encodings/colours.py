"""What latents look like: the linear map to red, green and blue that fits a data set best."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def moments(latents: Tensor, image: Tensor) -> Tensor:
    """What one image says about the map: ``X^T [X, Y]`` (C + 1, C + 4), float64; those of several images add up.

    ``latents`` (C, H, W), each with a 1 beside it, are the rows of X; Y are the colours 0..1 of the pixels below each,
    from ``image`` (3, H * f, W * f) in -1..1.
    """
    seen = F.adaptive_avg_pool2d(image.double() / 2 + 0.5, (latents.shape[-2], latents.shape[-1]))
    pairs = torch.cat([latents.double(), torch.ones_like(seen[:1]), seen]).flatten(1)
    return pairs[: len(latents) + 1] @ pairs.T


def fit(total: Tensor) -> Tensor:
    """The least-squares map (C + 1, 3), float32, from the sum of :func:`moments`; the last row is added.

    Where images leave it open, as all-grey ones do, it is the smallest map that fits.
    """
    known = len(total)
    return (torch.linalg.pinv(total[:, :known], hermitian=True) @ total[:, known:]).float()
