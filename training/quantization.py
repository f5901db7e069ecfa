"""Frozen base weights in 8 or 4 bit, where torchao or bitsandbytes is installed; adapters on top stay float32."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, Literal

import torch

Quantization = Literal["none", "int8", "int4", "fp8", "nf4"]

LIBRARIES = {"int8": "torchao", "int4": "torchao", "fp8": "torchao", "nf4": "bitsandbytes"}
TORCHAO = {"int8": "Int8WeightOnlyConfig", "int4": "Int4WeightOnlyConfig", "fp8": "Float8WeightOnlyConfig"}


def quantization_config(kind: Quantization, compute: torch.dtype) -> Any:
    """diffusers' settings for weights of this kind, computed with in ``compute``.

    Raises ValueError, naming the remedy, where the library that does it is not installed.
    """
    import diffusers

    library = LIBRARIES[kind]
    if find_spec(library) is None:
        raise ValueError(
            f"quantize {kind} needs {library}, which is not installed: pip install {library}, or choose none"
        )
    if kind == "nf4":
        return diffusers.BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=compute
        )
    import torchao.quantization

    return diffusers.TorchAoConfig(getattr(torchao.quantization, TORCHAO[kind])())
