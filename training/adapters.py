"""Adapters (LoRA and its relatives): peft's own, put into a pretrained network."""

from __future__ import annotations

import json
import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor

from . import seeds
from .checkpoint import read_metadata, read_weights, save_weights
from .lora.layers import Adapter, LayerAdapter, from_peft, kronecker_shape, to_peft
from .lora.names import Layers
from .models import Model
from .text_encoders import ATTACHED, name_in_file, name_in_network

if TYPE_CHECKING:
    from peft import PeftConfig

AdapterKind = Literal["lora", "lokr", "loha"]

SETTINGS = "lora_adapter_metadata"
"""Where diffusers keeps peft's settings in a file's metadata."""


PATTERNS = ("rank_pattern", "alpha_pattern")
"""Where peft keeps the ranks and alphas of single layers."""


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
    ranks: Mapping[str, int] = field(default_factory=dict)
    """Layers with another rank."""
    alphas: Mapping[str, float] = field(default_factory=dict)
    """Layers with another alpha."""
    factor: int = -1
    """LoKr: into how many parts the sides of a matrix are cut; -1 = near the square root."""

    def __post_init__(self) -> None:
        if self.kind not in get_args(AdapterKind):
            raise ValueError(f"kind {self.kind!r} is none of {', '.join(get_args(AdapterKind))}")
        if self.kind != "lora" and (self.dora or self.rslora):
            raise ValueError(f"{'dora' if self.dora else 'rslora'} goes with kind lora only, not with {self.kind}")

    def config(self) -> PeftConfig:
        """peft's settings."""
        import peft

        common: dict[str, Any] = {
            "r": self.rank,
            "target_modules": self.targets if isinstance(self.targets, str) else list(self.targets),
            "rank_pattern": {f"^{re.escape(layer)}": rank for layer, rank in self.ranks.items()},
            "alpha_pattern": {f"^{re.escape(layer)}": alpha for layer, alpha in self.alphas.items()},
        }
        if self.kind == "lora":
            return peft.LoraConfig(
                **common,
                lora_alpha=self.alpha,  # type: ignore[arg-type]  # peft takes fractions too
                lora_dropout=self.dropout,
                use_dora=self.dora,
                use_rslora=self.rslora,
            )
        if self.kind == "lokr":
            return peft.LoKrConfig(
                **common, alpha=self.alpha, module_dropout=self.dropout, decompose_factor=self.factor  # type: ignore[arg-type]
            )  # fmt: skip
        return peft.LoHaConfig(**common, alpha=self.alpha, module_dropout=self.dropout)  # type: ignore[arg-type]


def settings_of(adapter: Adapter, layers: Layers, name: str, dropout: float = 0.0) -> AdapterSettings:
    """The settings that make room for this very adapter: its layers, and the rank and alpha of each."""
    parts = list(adapter.values())
    rank = Counter(part.rank for part in parts).most_common(1)[0][0]
    alpha = Counter(part.alpha for part in parts).most_common(1)[0][0]
    kind = parts[0].kind
    return AdapterSettings(
        name,
        kind,  # type: ignore[arg-type]
        rank,
        alpha,
        targets="|".join(map(re.escape, adapter)),
        dropout=dropout,
        dora=parts[0].has_magnitude,
        ranks={layer: part.rank for layer, part in adapter.items() if part.rank != rank},
        alphas={layer: part.alpha for layer, part in adapter.items() if part.alpha != alpha},
        factor=kronecker_factor(adapter, layers) if kind == "lokr" else -1,
    )


def kronecker_factor(adapter: Adapter, layers: Layers) -> int:
    """The setting under which peft cuts the layers' matrices as this LoKr has them; raises ValueError if none does."""
    from peft.tuners.lokr.layer import factorization

    cuts = set()
    for layer, part in adapter.items():
        rows, columns = kronecker_shape(part, "lokr_w1")
        cuts |= {(layers[layer][0], rows), (layers[layer][1], columns)}
    for factor in (-1, *sorted({first for _, first in cuts})):
        if all(factorization(side, factor)[0] == first for side, first in cuts):
            return factor
    raise ValueError("this LoKr cuts its matrices in a way that peft cannot")


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
    for name, weight in model.network.named_parameters():
        if settings.name in name.split("."):
            weight.data = weight.data.float()
            numbers += weight.numel()
    if weights is not None:
        set_weights(model, settings.name, weights, "the file")
    return numbers


def continue_adapter(model: Model, adapter: Adapter, layers: Layers, name: str, dropout: float = 0.0) -> int:
    """Put an adapter that was read from a file into the network; returns how many numbers it has."""
    float32 = {key: value.float() for key, value in to_peft(adapter).items()}
    return add_adapter(model, settings_of(adapter, layers, name, dropout), 0, float32)


INNER = re.compile(r"\.base_layer(?=\.)")
"""What peft puts into a layer's name where an adapter of another kind is wrapped around it."""


def adapter_weights(model: Model, name: str) -> dict[str, Tensor]:
    """The weights of one adapter, by peft's names: ``<layer>.lora_A.weight`` ..."""
    return {INNER.sub("", key): value for key, value in _peft_weights(model, name).items()}


def _peft_weights(model: Model, name: str) -> dict[str, Tensor]:
    from peft import get_peft_model_state_dict

    weights: dict[str, Tensor] = get_peft_model_state_dict(model.network, adapter_name=name)
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


# Files of a run


def file_of(stem: str, names: tuple[str, ...], name: str) -> str:
    """The file of one of these adapters: ``stem`` alone where there is only one."""
    return f"{stem}.safetensors" if len(names) == 1 else f"{stem}_{name}.safetensors"


def save_adapters(folder: Path, model: Model, metadata: Mapping[str, str], stem: str) -> None:
    """Write every adapter into the folder, each in a diffusers file of its own, for :func:`restore_adapters`."""
    for name in model.adapters:
        start, weights = part_of(model), adapter_weights(model, name)
        settings = model.network.peft_config[name].to_dict()
        text = text_settings(from_peft(weights, settings))
        for pattern in PATTERNS:  # peft warns of those that fit nothing in the network alone
            own = settings.get(pattern) or {}
            settings[pattern] = {key: own[key] for key in own if not key.startswith("^" + re.escape(ATTACHED))}
        about = settings_metadata({start: settings, **text})
        path = folder / file_of(stem, model.adapters, name)
        in_file = {name_in_file(key, start): value for key, value in weights.items()}
        save_weights(path, in_file, {**metadata, **about, "rollout_adapter": name})


def text_settings(adapter: Adapter) -> dict[str, dict[str, Any]]:
    """peft's settings of the adapter's LoRA for each text encoder, by part; empty where it has none.

    Layers go by the ends of their names, so that they fit whether or not transformers calls them ``text_model.``.
    """
    parts: dict[str, dict[str, LayerAdapter]] = defaultdict(dict)
    for layer, found in adapter.items():
        if layer.startswith(ATTACHED):
            part, _, inner = layer.removeprefix(ATTACHED).partition(".")
            parts[part][inner.removeprefix("text_model.")] = found
    settings = {}
    for part, layers in parts.items():
        known = replace(settings_of(layers, {}, part), targets=tuple(layers)).config().to_dict()
        for pattern in PATTERNS:
            known[pattern] = {key.removeprefix("^"): value for key, value in known[pattern].items()}
        settings[part] = known
    return settings


def settings_metadata(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """peft's settings of each part of a pipeline as diffusers keeps them in a file."""
    kept = {
        f"{part}.{key}": sorted(value) if isinstance(value, set) else value
        for part, own in settings.items()
        for key, value in own.items()
    }
    return {SETTINGS: json.dumps(kept)}


def adapter_files(folder: Path) -> dict[str, Path]:
    """The adapters that :func:`save_adapters` wrote, by name; empty for a folder that holds a network."""
    files = {path: read_metadata(path).get("rollout_adapter") for path in sorted(folder.glob("*.safetensors"))}
    return {name: path for path, name in files.items() if name}


def restore_adapters(folder: Path, model: Model) -> None:
    """Give the network's adapters the weights that :func:`save_adapters` wrote."""
    files = adapter_files(folder)
    for name in model.adapters:
        if name not in files:
            raise ValueError(f"there is no adapter {name!r} in {folder}")
        weights = {name_in_network(key): value for key, value in read_weights(files[name]).items()}
        set_weights(model, name, weights, str(files[name]))


def read_saved(path: Path) -> dict[str, LayerAdapter]:
    """An adapter that :func:`save_adapters` wrote."""
    known, weights = json.loads(read_metadata(path)[SETTINGS]), read_weights(path)
    adapter: dict[str, LayerAdapter] = {}
    for start in dict.fromkeys(f"{key.partition('.')[0]}." for key in weights):
        own, settings = (
            {key.removeprefix(start): value for key, value in found.items() if key.startswith(start)}
            for found in (weights, known)
        )
        adapter |= {name_in_network(start + layer): part for layer, part in from_peft(own, settings).items()}
    return adapter


def in_dtype(adapter: Adapter, dtype: torch.dtype) -> dict[str, LayerAdapter]:
    """The adapter with its weights in another number format."""
    return {
        layer: replace(part, weights={name: value.to(dtype) for name, value in part.weights.items()})
        for layer, part in adapter.items()
    }


def part_of(model: Model) -> str:
    """The name of the network in its pipeline, which diffusers puts before an adapter's keys."""
    return getattr(model, "network_part", "transformer")
