"""An adapter of a run as a file to take away."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...files.weights import save_checked
from .dora import for_comfyui, turned_by_comfyui
from .formats import Format, by_diffusers_names, named, to_file, with_unit_scales
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
