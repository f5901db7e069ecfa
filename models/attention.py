"""What computes a network's attention: torch's own choice, or a kernel that is asked for and installed."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch

from .quiet import quiet

if TYPE_CHECKING:
    from .families import PretrainedModel

DEFAULT = "default"


@dataclass(frozen=True)
class Kernel:
    backend: str
    """diffusers' name."""
    masks: bool = True
    """Whether it can leave out tokens: captions of several lengths in a batch need that."""
    library: str = ""
    """The module that has it; empty for torch."""


KERNELS = {
    "sdpa": Kernel("native"),
    "sdpa_flash": Kernel("_native_flash", masks=False),
    "flash": Kernel("flash", masks=False, library="flash_attn"),
    "flash_varlen": Kernel("flash_varlen", library="flash_attn"),
    "flash_3": Kernel("_flash_3", masks=False, library="flash_attn_interface"),
}


def installed() -> list[str]:
    """What can be chosen here."""
    there = [name for name, kernel in KERNELS.items() if not kernel.library or find_spec(kernel.library)]
    return [DEFAULT, *there]


def check_attention(name: str, kind: type[PretrainedModel] | None = None) -> None:
    """Raises ValueError, naming the remedy, for a kernel that is not installed or that the family cannot use."""
    if name == DEFAULT:
        return
    if name not in KERNELS:
        raise ValueError(f"attention: {name!r} is none of {', '.join(installed())}")
    kernel = KERNELS[name]
    if name not in installed():
        package = kernel.library.replace("_", "-")
        raise ValueError(f"attention: {name} needs {package}, which is not installed: install it, or choose default")
    if kind and kind.attention == "fixed":
        raise ValueError(f"attention: {kind.title} always computes with torch's (sdpa): choose default")
    if kind and kind.attention == "masked" and not kernel.masks:
        can = ", ".join(other for other in installed()[1:] if KERNELS[other].masks)
        raise ValueError(f"attention: {kind.title} leaves tokens out, which {name} cannot: choose {can}, or default")


def attend_by(network: Any, name: str, device: torch.device | str) -> None:
    """Have a network of diffusers compute its attention by this kernel; raises ValueError where it cannot there."""
    if name == DEFAULT:
        return
    kernel, place = KERNELS[name], torch.device(device).type
    if kernel.library and place != "cuda":
        raise ValueError(f"attention: {name} runs on CUDA, and not on {place}: choose default")
    from diffusers.models.attention_dispatch import attention_backend

    # diffusers would keep it for all networks of this process that choose none: other runs, VAEs, ComfyUI's own.
    with quiet():
        try:
            with attention_backend(kernel.backend):
                network.set_attention_backend(kernel.backend)
        except RuntimeError as error:
            raise ValueError(f"attention: {name} cannot be used ({error}): choose default") from error
