"""Weights of which each process holds a part (FSDP2): the whole of them, and a part of a whole."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn


def whole(value: Tensor) -> Tensor:
    """All of a tensor of which each process may hold a part; then all must ask."""
    return cast("Tensor", cast("Any", value).full_tensor()) if hasattr(value, "full_tensor") else value


def here(value: Tensor) -> Tensor:
    """The part of a tensor that is in this process."""
    return cast("Tensor", cast("Any", value).to_local()) if hasattr(value, "to_local") else value


def parted_like(value: Tensor, weight: Tensor) -> Tensor:
    """A whole tensor in parts as ``weight``, of the same shape, is."""
    if not hasattr(weight, "device_mesh"):
        return value
    from torch.distributed.tensor import distribute_tensor

    mesh = cast("Any", weight)
    return distribute_tensor(value.to(weight.device), mesh.device_mesh, mesh.placements)


def let_go(network: nn.Module) -> None:
    """Nobody keeps the old values of weights that were brought together and are changed now."""
    for module in network.modules():
        if hasattr(module, "reshard"):
            module.reshard()  # type: ignore[operator]
