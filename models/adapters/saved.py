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
from torch import Tensor

from ...files.weights import read_metadata, read_weights, save_weights
from ..model import Model
from .formats import with_unit_scales
from .layers import Adapter, LayerAdapter, from_peft, peft_scale, rescaled, to_peft
from .network import adapter_weights, set_weights
from .settings import ALPHAS, PATTERNS, RANKS, settings_of
from .text_encoders import ATTACHED, name_in_file, name_in_network

SETTINGS = "lora_adapter_metadata"
"""Where diffusers keeps peft's settings in a file's metadata."""


SCALES = "rollout_trained_scale"
"""alpha / rank that an adapter was trained with, for whoever trains it further: for all layers, or by layer. Files of
diffusers have it in their weights, with alpha = rank."""


NORM_OF_FROZEN = "rollout_dora"
"""In the metadata of a file whose DoRA divides by the length of the frozen weight, as ComfyUI does (see dora.py)."""


def file_of(stem: str, names: tuple[str, ...], name: str) -> str:
    """The file of one of these adapters: ``stem`` alone where there is only one."""
    return f"{stem}.safetensors" if len(names) == 1 else f"{stem}_{name}.safetensors"


def save_adapters(
    folder: Path,
    model: Model,
    metadata: Mapping[str, str],
    stem: str,
    weights: Mapping[str, Tensor] | None = None,
) -> None:
    """Write every adapter into the folder, each in a diffusers file of its own, for :func:`restore_adapters`.

    ``weights``, by the network's names, are written in place of its own.
    """
    for name in model.adapters:
        start, settings = part_of(model), model.network.peft_config[name].to_dict()
        adapter = from_peft(adapter_weights(model, name, weights), settings)
        plain = with_unit_scales(adapter)
        about = settings_metadata({start: at_unit_scale(settings), **text_settings(plain)}) | scales_metadata(adapter)
        path = folder / file_of(stem, model.adapters, name)
        in_file = {name_in_file(key, start): value for key, value in to_peft(plain).items()}
        save_weights(path, in_file, {**metadata, **about, "rollout_adapter": name})


def at_unit_scale(settings: Mapping[str, Any]) -> dict[str, Any]:
    """peft's settings of the network's adapter with alpha = rank everywhere, for the network alone."""
    attached = "^" + re.escape(ATTACHED)  # peft warns of patterns that fit nothing in the network alone
    ranks = {key: rank for key, rank in (settings.get(RANKS) or {}).items() if not key.startswith(attached)}
    alpha = "lora_alpha" if "lora_alpha" in settings else "alpha"
    known = {**settings, alpha: settings["r"], RANKS: ranks, ALPHAS: dict(ranks)}
    return known | ({"use_rslora": False} if "use_rslora" in known else {})


def scales_metadata(adapter: Adapter) -> dict[str, str]:
    """The scales that it was trained with; nothing where they are 1."""
    scales = {layer: part.scale for layer, part in adapter.items()}
    if set(scales.values()) <= {1.0}:
        return {}
    return {SCALES: json.dumps(scales if len(set(scales.values())) > 1 else next(iter(scales.values())))}


def with_trained_scales(adapter: Adapter, metadata: Mapping[str, str]) -> dict[str, LayerAdapter]:
    """The adapter as it was trained, where its file says so: :func:`scales_metadata`'s inverse."""
    if SCALES not in metadata:
        return dict(adapter)
    known = json.loads(metadata[SCALES])
    scales: Mapping[str, float] = known if isinstance(known, dict) else dict.fromkeys(adapter, known)
    return {layer: rescaled(part, scales.get(layer, part.scale)) for layer, part in adapter.items()}


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
        settings, saved = model.network.peft_config[name].to_dict(), read_saved(files[name])
        as_here = {layer: rescaled(part, peft_scale(layer, settings)) for layer, part in saved.items()}
        set_weights(model, name, to_peft(as_here), str(files[name]))


def read_saved(path: Path) -> dict[str, LayerAdapter]:
    """An adapter that :func:`save_adapters` wrote."""
    metadata, weights = read_metadata(path), read_weights(path)
    known = json.loads(metadata[SETTINGS])
    adapter: dict[str, LayerAdapter] = {}
    for start in dict.fromkeys(f"{key.partition('.')[0]}." for key in weights):
        own, settings = (
            {key.removeprefix(start): value for key, value in found.items() if key.startswith(start)}
            for found in (weights, known)
        )
        adapter |= {name_in_network(start + layer): part for layer, part in from_peft(own, settings).items()}
    return with_trained_scales(adapter, metadata)


def in_dtype(adapter: Adapter, dtype: torch.dtype) -> dict[str, LayerAdapter]:
    """The adapter with its weights in another number format."""
    return {
        layer: replace(part, weights={name: value.to(dtype) for name, value in part.weights.items()})
        for layer, part in adapter.items()
    }


def part_of(model: Model) -> str:
    """The name of the network in its pipeline, which diffusers puts before an adapter's keys."""
    return getattr(model, "network_part", "transformer")
