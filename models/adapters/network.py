"""Adapters (LoRA and its relatives) in a live network: peft's own."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ...diffusion import seeds
from ..model import Model
from .dora import for_peft, turned_by_comfyui, weights_of
from .layers import Adapter, to_peft
from .original import Layers
from .settings import AdapterSettings, settings_of
from .text_encoders import ATTACHED


def add_adapter(model: Model, settings: AdapterSettings, seed: int, weights: Mapping[str, Tensor] | None = None) -> int:
    """Put an adapter into the network; returns how many numbers it has. Its weights are float32.

    A new one changes nothing until it is trained; ``weights``, by peft's names, are those of an earlier one.
    Raises ValueError where no layer fits ``settings.targets``, or the weights do not fit.
    """
    from peft import inject_adapter_in_model
    from peft.tuners.tuners_utils import BaseTunerLayer

    with seeds.global_seed(seed), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")  # several adapters are meant
        warnings.filterwarnings("ignore", message="TorchaoLoraLinear was instantiated")  # squeezed: never merged
        try:
            inject_adapter_in_model(settings.config(), model.network, settings.name)
        except (ValueError, re.error) as error:
            raise ValueError(f"targets: {' '.join(str(error).split())}") from error
    model.network._hf_peft_config_loaded = True  # type: ignore[assignment]  # diffusers' own word for "has adapters"
    model.adapters = (*model.adapters, settings.name)
    for module in model.network.modules():
        if isinstance(module, BaseTunerLayer):
            module.set_adapter(list(model.adapters))
    numbers = 0
    for name, weight in list(model.network.named_parameters()):
        if settings.name in name.split("."):
            owner, _, last = name.rpartition(".")
            there = weight.detach().to(model.device, torch.float32)  # peft puts it where its layer is, which may wait
            setattr(model.network.get_submodule(owner), last, nn.Parameter(there))
            numbers += weight.numel()
    if weights is not None:
        set_weights(model, settings.name, weights, "the file")
    return numbers


def continue_adapter(model: Model, adapter: Adapter, layers: Layers, name: str, dropout: float = 0.0) -> int:
    """Put an adapter that was read from a file into the network; returns how many numbers it has."""
    frozen = weights_of(model.network, [layer for layer, part in adapter.items() if part.norm_of_frozen])
    is_turned = turned_by_comfyui(type(model.network).__name__, layers)
    float32 = {key: value.float() for key, value in to_peft(for_peft(adapter, frozen, is_turned)).items()}
    return add_adapter(model, settings_of(adapter, layers, name, dropout), 0, float32)


INNER = re.compile(r"\.base_layer(?=\.)")
"""What peft puts into a layer's name where an adapter of another kind is wrapped around it."""


def adapter_weights(model: Model, name: str, weights: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """The weights of one adapter, by peft's names: ``<layer>.lora_A.weight`` ...; ``weights``: of the whole network."""
    return {INNER.sub("", key): value for key, value in _peft_weights(model, name, weights).items()}


def _peft_weights(model: Model, name: str, state: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    from peft import get_peft_model_state_dict

    weights: dict[str, Tensor] = get_peft_model_state_dict(
        model.network, None if state is None else dict(state), adapter_name=name
    )
    return weights


def set_weights(model: Model, name: str, weights: Mapping[str, Tensor], where: str) -> None:
    """Give one adapter these weights, by peft's names; raises ValueError where they do not fit it."""
    from peft import set_peft_model_state_dict

    inside = {INNER.sub("", key): key for key in _peft_weights(model, name)}
    wanted = adapter_weights(model, name)
    if wrong := sorted(key for key in weights.keys() | wanted.keys() if shape(weights, key) != shape(wanted, key)):
        raise ValueError(f"{where} does not fit the adapter {name!r}: {len(wrong)} tensors differ, e.g. {wrong[0]}")
    set_peft_model_state_dict(model.network, {inside[key]: value for key, value in weights.items()}, adapter_name=name)


def shape(weights: Mapping[str, Tensor], name: str) -> torch.Size | None:
    return weights[name].shape if name in weights else None


def merged_weights(model: Model) -> dict[str, Tensor]:
    """The network's weights with all adapters added to them, by the names of the network without adapters.

    Raises ValueError where text encoders were trained too, which are no part of these.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    if any(name.startswith(ATTACHED) for name, _ in model.network.named_parameters()):
        raise ValueError("model: its text encoders were trained too, which cannot be merged; use Save LoRA instead")

    merged: dict[str, Tensor] = {}
    for module in model.network.modules():
        if isinstance(module, BaseTunerLayer):
            module.merge(adapter_names=list(model.adapters))
    for name, value in model.network.state_dict().items():
        if not any(part in model.adapters for part in name.split(".")):
            merged[INNER.sub("", name)] = value
    return merged
