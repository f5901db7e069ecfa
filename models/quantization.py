"""Frozen base weights in 8 or 4 bit, where torchao or bitsandbytes is installed; adapters on top stay float32."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from diffusers.models.modeling_utils import ModelMixin

Quantization = Literal["none", "int8", "fp8", "nf4"]

LIBRARIES = {"int8": "torchao", "fp8": "torchao", "nf4": "bitsandbytes"}
TORCHAO = {"int8": "Int8WeightOnlyConfig", "fp8": "Float8WeightOnlyConfig"}


def check_installed(kind: str) -> None:
    """Raises ValueError, naming the remedy, where the library for weights of this kind is not installed."""
    library = LIBRARIES.get(kind)
    if library and find_spec(library) is None:
        raise ValueError(
            f"quantize: {kind} needs {library}, which is not installed: pip install {library}, or choose none"
        )


def check_checkpointing(kind: str, gradient_checkpointing: bool) -> None:
    """Raises ValueError, naming the remedy, where squeezed weights would take more memory than whole ones."""
    if kind in TORCHAO and not gradient_checkpointing:
        raise ValueError(
            f"gradient_checkpointing: quantize {kind} needs it, for without it every layer keeps its weights "
            "unsqueezed until the backward pass: switch it on, or choose quantize none"
        )


def loading_options(kind: Quantization, compute: torch.dtype) -> dict[str, Any]:
    """diffusers' options for weights that are squeezed while they are read: bitsandbytes', computed in ``compute``."""
    import diffusers

    check_installed(kind)
    if kind != "nf4":
        return {}
    config = diffusers.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=compute)
    return {"quantization_config": config}


def squeeze(network: ModelMixin, kind: Quantization, device: torch.device | str) -> None:
    """Squeeze the linear layers of a network that was read, one after the other on the device: torchao's.

    Not while it is read, as diffusers can: from a single file on the CPU, it would silently squeeze nothing. Raises
    ValueError where torchao cannot, with its reason.
    """
    if kind not in TORCHAO:
        return
    dtype = network.dtype
    check_installed(kind)
    import torchao.quantization
    from diffusers import TorchAoConfig
    from diffusers.quantizers import DiffusersAutoQuantizer

    config = getattr(torchao.quantization, TORCHAO[kind])()
    try:
        torchao.quantization.quantize_(network, config, device=str(device))
    except (AssertionError, ImportError, NotImplementedError, RuntimeError) as error:  # a card or a library it lacks
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"quantize: {kind} does not work on {device} here ({reason}): choose int8") from error
    if dtype != torch.float32:
        compute_in(network, dtype)
    # Where diffusers would have put it: peft asks it how an adapter is merged.
    network.hf_quantizer = DiffusersAutoQuantizer.from_config(TorchAoConfig(config))  # type: ignore[arg-type]


def compute_in(network: nn.Module, dtype: torch.dtype) -> None:
    """Cast what comes into squeezed layers to ``dtype``, so that they answer in it.

    Under autocast norms answer in float32, and torchao's layers answer in what they are asked in: all activations
    would take twice the memory. Ordinary layers are cast by autocast itself.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Linear) and is_squeezed(layer.weight):
            layer.register_forward_pre_hook(lambda _, inputs: (inputs[0].to(dtype), *inputs[1:]))


def is_squeezed(weight: Tensor) -> bool:
    """Whether a weight is kept in 8 or 4 bit, so that it cannot be trained itself."""
    return not weight.is_floating_point() or type(weight.data) is not Tensor
