"""An adapter of a run as a file to take away."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...files.weights import read_weights, save_checked
from .dora import for_comfyui, turned_by_comfyui
from .formats import Format, by_diffusers_names, flat, named, to_file, with_unit_scales
from .layers import DOWN, UP, LayerAdapter
from .metadata import About, Base, hashes, kohya_fields, modelspec
from .names import Names
from .reading import from_file
from .saved import NORM_OF_FROZEN, in_dtype, read_saved, scales_metadata, settings_metadata, text_settings
from .settings import settings_of
from .text_encoders import ATTACHED


def export_lora(
    source: Path,
    path: Path,
    format: Format,
    names: Names,
    *,
    part: str,
    dtype: torch.dtype,
    base: Base,
    about: About,
    run: Mapping[str, Any],
    extra: Mapping[str, str],
    weights: Callable[[list[str]], Mapping[str, Tensor]],
) -> Path:
    """Write the adapter in a run's file ``source`` as ``path``, and read it back; returns the path.

    ``run`` are facts for the ``ss_`` fields, ``extra`` more metadata; ``weights(layers)`` gives the frozen weights of
    layers, and is asked for those of a DoRA. Raises ValueError where the format cannot hold
    it, or the file is not what was written.
    """
    adapter = read_saved(source)
    with_norms = [layer for layer, part in adapter.items() if part.has_magnitude] if format == "comfyui" else []
    if with_norms:
        adapter = for_comfyui(adapter, weights(with_norms), turned_by_comfyui(names.network_class, names.layers))
        extra = {**extra, NORM_OF_FROZEN: "comfyui"}
    adapter = in_dtype(adapter, dtype)
    tensors = to_file(adapter, format, names, part)
    in_file = with_unit_scales(adapter) if format == "diffusers" else named(adapter, format, names)
    kohya = kohya_fields(base, about, in_file, run)
    own = format == "diffusers" or by_diffusers_names(adapter, format, names) is not None
    metadata = {**extra, **kohya, **modelspec(base, about, is_lora=True, by_diffusers=own), **hashes(tensors, kohya)}
    if format == "diffusers":
        network = {layer: found for layer, found in in_file.items() if not layer.startswith(ATTACHED)}
        config = settings_of(network, names.layers, "default").config()
        metadata |= settings_metadata({part: config.to_dict(), **text_settings(in_file)}) | scales_metadata(adapter)
    back = from_file(tensors, names)
    if back.unknown or back.misfits or back.text_encoders:
        raise ValueError(f"format: {format} has no names for some of these layers; choose diffusers")
    save_checked(path, tensors, metadata)
    return path


def export_hosted(
    source: Path,
    path: Path,
    format: Format,
    dtype: torch.dtype,
    family: str,
    about: About,
    run: Mapping[str, Any],
    extra: Mapping[str, str],
) -> Path:
    """Write the adapter of a ComfyUI model, which a run keeps by ComfyUI's names, as ``path``; returns it.

    kohya's names are the same with underscores. Raises ValueError for diffusers, which calls the layers differently.
    """
    if format == "diffusers":
        raise ValueError("format: diffusers' names are not known for a ComfyUI model; choose comfyui or kohya")
    kept = read_weights(source)
    layers: dict[str, dict[str, Tensor]] = {}
    for key, value in kept.items():
        layer = key.partition(next(start for start in STARTS if start in key))[0]
        layers.setdefault(layer, {})[key.removeprefix(f"{layer}.")] = value
    tensors = {
        f"{layer if format == 'comfyui' else kohya_name(layer)}.{name}": value.to(dtype)
        for layer, weights in layers.items()
        for name, value in weights.items()
    }
    adapter = {layer: hosted_part(weights) for layer, weights in layers.items()}
    base = Base(family, {})
    kohya = kohya_fields(base, about, adapter, run)
    metadata = {**extra, **kohya, **modelspec(base, about, is_lora=True, by_diffusers=False), **hashes(tensors, kohya)}
    save_checked(path, tensors, {**metadata, "modelspec.implementation": "https://github.com/comfyanonymous/ComfyUI"})
    return path


STARTS = (".lora_", ".lokr_", ".hada_", ".alpha")
"""How the names of an adapter's own weights begin, behind that of its layer."""


def kohya_name(layer: str) -> str:
    return "lora_unet_" + flat(layer.removeprefix("diffusion_model."))


def hosted_part(weights: Mapping[str, Tensor]) -> LayerAdapter:
    """One layer's adapter by peft's names, for what a file says about itself."""
    names = {"lora_up.weight": UP, "lora_down.weight": DOWN}
    part = LayerAdapter({names.get(name, name): value for name, value in weights.items() if name != "alpha"}, 1.0)
    return replace(part, scale=float(weights["alpha"]) / part.rank) if "alpha" in weights else part
