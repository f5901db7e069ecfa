"""Which device a run uses, and giving its memory back."""

from __future__ import annotations

import gc
from pathlib import Path

import torch


def free_memory() -> None:
    """Give back what nobody holds any more, also to the GPU's other users."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def choose_device(name: str) -> str:
    """``auto`` becomes cuda, mps or cpu, whichever is there; another name is a device that torch knows.

    Raises ValueError where torch knows no such device, or says that it is not there.
    """
    import torch

    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return next(device for device, there in available.items() if there)
    try:
        kind = torch.device(name).type
    except RuntimeError as error:
        raise ValueError(f"device {name!r} is none that torch knows: choose auto, cpu, cuda or mps") from error
    if not available.get(kind, True):
        there = ", ".join(device for device, yes in available.items() if yes)
        raise ValueError(f"device {name!r} is not available here: choose auto or one of {there}")
    return name


def memory_left() -> int:
    """Bytes of the computer's own memory that may still be taken, by the machine's count or our container's."""
    import psutil

    left = int(psutil.virtual_memory().available)
    group = Path("/sys/fs/cgroup")
    try:
        most, taken = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
    except (OSError, ValueError):  # no container, or one without a limit ("max")
        return left
    return min(left, most - taken)


def memory_of(name: str) -> int | None:
    """Bytes of a device's own memory; None for one that shares the computer's, or is not there."""
    device = torch.device(choose_device(name))
    return torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else None
