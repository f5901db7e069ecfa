"""Adapters (LoRA and its relatives): peft's own, put into a pretrained network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from . import seeds
from .checkpoint import read_weights, save_weights
from .models import Model

if TYPE_CHECKING:
    from peft import PeftConfig

AdapterKind = Literal["lora", "lokr", "loha"]

ADAPTER = "pytorch_lora_weights.safetensors"
"""The file of a run's adapter, where diffusers' load_lora_weights looks for it."""


@dataclass(frozen=True)
class AdapterSettings:
    """What is put into a network, and where."""

    name: str
    """Unique among the adapters of a network."""
    kind: AdapterKind = "lora"
    rank: int = 16
    alpha: float = 16.0
    """The adapter counts alpha / rank times (alpha / sqrt(rank) with rsLoRA)."""
    targets: tuple[str, ...] | str = ()
    """Ends of the names of the layers that get one, or a regular expression for whole names."""
    dropout: float = 0.0
    dora: bool = False
    rslora: bool = False

    def config(self) -> PeftConfig:
        """peft's settings."""
        import peft

        targets = self.targets if isinstance(self.targets, str) else list(self.targets)
        common: dict[str, Any] = {"r": self.rank, "target_modules": targets}
        if self.kind == "lora":
            return peft.LoraConfig(
                **common,
                lora_alpha=self.alpha,  # type: ignore[arg-type]  # peft takes fractions too
                lora_dropout=self.dropout,
                use_dora=self.dora,
                use_rslora=self.rslora,
            )
        kind = peft.LoKrConfig if self.kind == "lokr" else peft.LoHaConfig
        return kind(**common, alpha=self.alpha, module_dropout=self.dropout)  # type: ignore[arg-type]


def add_adapter(model: Model, settings: AdapterSettings, seed: int) -> None:
    """Put a new adapter into the network, which changes nothing until it is trained; its weights are float32.

    Raises ValueError where no layer fits ``settings.targets``.
    """
    from peft import inject_adapter_in_model
    from peft.tuners.tuners_utils import BaseTunerLayer

    with seeds.global_seed(seed):
        try:
            inject_adapter_in_model(settings.config(), model.network, settings.name)
        except ValueError as error:
            raise ValueError(f"targets: {' '.join(str(error).split())}") from error
    model.network._hf_peft_config_loaded = True  # type: ignore[assignment]  # diffusers' own word for "has adapters"
    model.adapters = (*model.adapters, settings.name)
    for module in model.network.modules():
        if isinstance(module, BaseTunerLayer):
            module.set_adapter(list(model.adapters))
    for name, weight in model.network.named_parameters():
        if settings.name in name.split("."):
            weight.data = weight.data.float()


def adapter_weights(model: Model, name: str) -> dict[str, Tensor]:
    """The weights of one adapter, by peft's names: ``<layer>.lora_A.weight`` ..."""
    from peft import get_peft_model_state_dict

    weights: dict[str, Tensor] = get_peft_model_state_dict(model.network, adapter_name=name)
    return weights


def save_adapters(folder: Path, model: Model, metadata: Mapping[str, str]) -> None:
    """Write every adapter into the folder, each in a file of its own, for :func:`restore_adapters`."""
    for name in model.adapters:
        path = folder / (ADAPTER if len(model.adapters) == 1 else f"{name}.safetensors")
        settings = model.network.peft_config[name].to_dict()
        kept = {key: sorted(value) if isinstance(value, set) else value for key, value in settings.items()}
        about = {"lora_adapter_metadata": json.dumps({f"{part_of(model)}.{key}": value for key, value in kept.items()})}
        weights = {f"{part_of(model)}.{key}": value for key, value in adapter_weights(model, name).items()}
        save_weights(path, weights, {**metadata, **about})


def restore_adapters(folder: Path, model: Model) -> None:
    """Give the network's adapters the weights that :func:`save_adapters` wrote."""
    from peft import set_peft_model_state_dict

    for name in model.adapters:
        path = folder / (ADAPTER if len(model.adapters) == 1 else f"{name}.safetensors")
        start = f"{part_of(model)}."
        weights = {key.removeprefix(start): value for key, value in read_weights(path).items()}
        wanted = adapter_weights(model, name)
        if wrong := sorted(key for key in weights.keys() | wanted.keys() if shape(weights, key) != shape(wanted, key)):
            raise ValueError(f"{path} does not fit the adapter {name!r}: {len(wrong)} tensors differ, e.g. {wrong[0]}")
        set_peft_model_state_dict(model.network, weights, adapter_name=name)


def shape(weights: Mapping[str, Tensor], name: str) -> torch.Size | None:
    return weights[name].shape if name in weights else None


def part_of(model: Model) -> str:
    """The name of the network in its pipeline, which diffusers puts before an adapter's keys."""
    return getattr(model, "network_part", "transformer")
