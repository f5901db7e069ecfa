"""How a forward is computed: with gradients, in which precision, and where what it saves for the backward waits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..models.swapping import taken_apart
from .options import Precision


@contextmanager
def training_mode() -> Iterator[None]:
    """Gradients are on, even where the caller runs everything in inference mode, as ComfyUI does."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


@contextmanager
def autocast(device: torch.device, precision: Precision) -> Iterator[None]:
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    # No cache of converted weights: one made in a rollout, without gradient, must not serve the training forward, nor
    # live weights the averaged ones.
    with torch.autocast(device.type, dtype, enabled=precision != "fp32", cache_enabled=False):
        yield


@contextmanager
def waiting(network: nn.Module, device: torch.device) -> Iterator[None]:
    """What autograd saves inside, weights aside, waits in main memory (pinned, for a GPU) until it is asked for."""
    parts = (part for weight in (*network.parameters(), *network.buffers()) for part in taken_apart(weight)[0])
    weights = {part.untyped_storage().data_ptr() for part in parts}
    hooks = torch.autograd.graph.save_on_cpu(pin_memory=device.type == "cuda")

    def away(tensor: Tensor) -> Any:
        stays = all(part.untyped_storage().data_ptr() in weights for part in taken_apart(tensor)[0])
        return tensor if stays else hooks.pack_hook(tensor)

    def back(saved: Any) -> Tensor:
        there: Tensor = saved if isinstance(saved, Tensor) else hooks.unpack_hook(saved)
        return there

    with torch.autograd.graph.saved_tensors_hooks(away, back):
        yield
