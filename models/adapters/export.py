"""An adapter of a run as a file to take away."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ...files.weights import save_checked
from .formats import Format, by_diffusers_names, to_file
from .metadata import About, Base, hashes, kohya_fields, modelspec
from .names import Names
from .reading import from_file
from .saved import in_dtype, read_saved, settings_metadata, text_settings
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
) -> Path:
    """Write the adapter in a run's file ``source`` as ``path``, and read it back; returns the path.

    ``run`` are facts for the ``ss_`` fields, ``extra`` more metadata. Raises ValueError where the format cannot hold
    it, or the file is not what was written.
    """
    adapter = in_dtype(read_saved(source), dtype)
    tensors = to_file(adapter, format, names, part)
    kohya = kohya_fields(base, about, adapter, run)
    own = format == "diffusers" or by_diffusers_names(adapter, format, names) is not None
    metadata = {**extra, **kohya, **modelspec(base, about, is_lora=True, by_diffusers=own), **hashes(tensors, kohya)}
    if format == "diffusers":
        network = {layer: found for layer, found in adapter.items() if not layer.startswith(ATTACHED)}
        config = settings_of(network, names.layers, "default").config()
        metadata |= settings_metadata({part: config.to_dict(), **text_settings(adapter)})
    back = from_file(tensors, names)
    if back.unknown or back.misfits or back.text_encoders:
        raise ValueError(f"format: {format} has no names for some of these layers; choose diffusers")
    save_checked(path, tensors, metadata)
    return path
