"""Adapters in a run's folder: written in diffusers' format, and given back to a network."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ...files.weights import read_metadata, read_weights, save_weights
from ..model import Model
from .layers import Adapter, LayerAdapter, from_peft
from .network import adapter_weights, set_weights
from .settings import PATTERNS, settings_of
from .text_encoders import ATTACHED, name_in_file, name_in_network

SETTINGS = "lora_adapter_metadata"
"""Where diffusers keeps peft's settings in a file's metadata."""


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
