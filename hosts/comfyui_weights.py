"""The frozen weights under adapters: where ComfyUI keeps them while a copy is trained, and how layers multiply by them.

ComfyUI is imported when something is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

TOO_LARGE = "switch offloading on in Train ComfyUI Model, or take a smaller model or one in fp8"
EVERYTHING = 1e20
"""Bytes that are asked for, so that ComfyUI takes all it can off the device."""


def load(patcher: Any, offloading: bool) -> None:
    """Have the network where it is trained: all of it on the device, or with ``offloading`` as little as ComfyUI can.

    Raises ValueError where all of it does not come onto the device.
    """
    from comfy.model_management import load_models_gpu

    try:
        with torch.no_grad():
            if offloading:
                load_models_gpu([patcher], memory_required=EVERYTHING)
            else:
                load_models_gpu([patcher], force_full_load=True)
    except torch.OutOfMemoryError as error:
        size = patcher.model_size() / 2**30
        raise ValueError(
            f"model: its weights ({size:.1f} GB) do not fit on {patcher.load_device}, where all of them have to be "
            f"while it is trained; {TOO_LARGE}"
        ) from error
    if is_in_parts(patcher) and not offloading:
        raise ValueError(
            "model: ComfyUI keeps a part of it off the device (lowvram), where it is trained with offloading only; "
            f"start ComfyUI without --novram, {TOO_LARGE}"
        )


def on_device(patcher: Any) -> int:
    """Bytes of the network that are on the device."""
    return int(getattr(patcher.model, "model_loaded_weight_memory", 0))


def is_in_parts(patcher: Any) -> bool:
    """Whether a part of the network is off the device."""
    return bool(getattr(patcher.model, "model_lowvram", False))


@contextmanager
def kept_for_backward(offloading: bool) -> Iterator[None]:
    """With ``offloading``, weights come onto the device in tensors of their own.

    Else they come by streams into a few buffers, where the next layer's overwrite what autograd has kept of the last's.
    """
    from comfy import model_management

    streams = getattr(model_management, "NUM_STREAMS", 0)
    if offloading:
        model_management.NUM_STREAMS = 0
    try:
        yield
    finally:
        model_management.NUM_STREAMS = streams


def multiply_with_gradient(patcher: Any) -> None:
    """Have layers without a backward pass, or with a coarse one, multiply by the numbers that their weights mean."""
    for name, module in patcher.model.named_modules():
        if lacks_gradient(module):
            patcher.add_weight_wrapper(f"{name}.weight", as_it_is)


def lacks_gradient(module: nn.Module) -> bool:
    """Whether a layer multiplies in few bits in a way that autograd does not follow.

    Formats that round a layer's input too (fp8, mxfp8, nvfp4) have a backward pass in ComfyUI, by the very weights.
    Those that round weights alone (8-bit integers and all of 4 bits) have none, or one that rounds gradients as well;
    and weights that are fp8 without a scale are multiplied without one where ComfyUI runs with --fast.
    """
    weight = getattr(module, "weight", None)
    if weight is None or not hasattr(module, "weight_function"):
        return False
    if getattr(module, "quant_format", None) is None:
        return bool(weight.is_floating_point() and weight.itemsize == 1)
    from comfy.quant_ops import QUANT_ALGOS

    return not QUANT_ALGOS[module.quant_format].get("quantize_input", True)


def as_it_is(weight: Tensor) -> Tensor:
    """The weight: what changes weights gets them as plain numbers, and the layer then multiplies by these."""
    return weight
