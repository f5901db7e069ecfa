"""Scaled fp8 files, ComfyUI's and others: weights in eight bits, with one scale beside each of them or one for each of
its rows, read as the numbers they mean."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor

from ...files.weights import Header, header, read_weights

SCALES = (".scale_weight", ".weight_scale")
"""What a weight's scale is called, formerly and now, in place of ``.weight``."""
BESIDE = (*SCALES, ".scale_input", ".input_scale", ".comfy_quant", "scaled_fp8")
"""What such a file has beside weights; scales of inputs serve arithmetic in eight bits, which is not done here."""
EIGHT_BITS = (torch.float8_e4m3fn, torch.float8_e5m2)


def is_scaled(names: Collection[str]) -> bool:
    """Whether weights of these names mean nothing without their scales."""
    return any(name.endswith(BESIDE) for name in names)


def weights_alone(tensors: Mapping[str, Header]) -> dict[str, Header]:
    """Without what lies beside weights."""
    return {name: tensor for name, tensor in tensors.items() if not name.endswith(BESIDE)}


def network_header(path: str) -> dict[str, Header]:
    """Names and shapes of a file's weights, as they are once they were read."""
    return weights_alone(header(path))


def refuse_unknown(tensors: Mapping[str, Header], path: str) -> None:
    """Raises ValueError for weights that are squeezed in another way, from the header alone."""
    if not is_scaled(tensors):
        return
    blocks = any(name.endswith((".weight_scale_2", ".scale_weight_2")) for name in tensors)
    if blocks or any(tensor.ndim > 1 for name, tensor in tensors.items() if name.endswith(SCALES)):
        raise ValueError(
            f"{path!r} is squeezed with a scale for every few weights (nvfp4 or mxfp8), which is not read here: choose "
            "the fp8 scaled, bf16 or fp16 file"
        )


def read_meant(path: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """The weights of a scaled file, each times its scale (in float32) in this number format; others as they are.

    Raises ValueError where a weight in eight bits has no scale beside it, or a weight is squeezed in another way.
    """
    tensors = read_weights(Path(path))
    found: dict[str, Tensor] = {}
    for name in sorted(tensors):
        if name.endswith(BESIDE):
            continue
        weight, layer = tensors[name], name.removesuffix(".weight")
        scale = next((tensors[layer + end] for end in SCALES if layer + end in tensors), None)
        if scale is None:
            found[name] = weight.to(dtype) if weight.dtype in EIGHT_BITS else weight
        elif weight.dtype in EIGHT_BITS and scale.numel() in (1, len(weight)):
            found[name] = (weight.float() * scale.float().reshape(-1, *[1] * (weight.ndim - 1))).to(dtype)
        else:
            raise ValueError(
                f"{path!r}: {name} is kept as {str(weight.dtype).removeprefix('torch.')} with {scale.numel()} scales, "
                "which is not read here: choose the fp8 scaled, bf16 or fp16 file"
            )
    return found
