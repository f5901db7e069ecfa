"""Pipelines' folders on this machine: those that people have, and those in the cache of the Hugging Face hub."""

from __future__ import annotations

import re
from pathlib import Path

from ..quiet import quiet
from .index import index_file
from .weight_count import variant_of, weight_files

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def local_folder(name: str, *parts: str) -> Path:
    """A pipeline's folder on this machine; for a hub id its snapshot in the hub's cache, downloaded if need be.

    With the small files only, and the weights of these ``parts``. Raises ValueError where there is neither.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        if index_file(folder) is None:
            raise ValueError(f"{name!r} is not a pipeline's folder: it has no model_index.json")
        return folder
    if not HUB_ID.fullmatch(name):
        raise ValueError(f"the model {name!r} does not exist: give a folder, a .safetensors file or a hub id")
    folder = download(name, "*.json", "*.txt", "*.model", "*.jinja")
    for part in parts:
        if not variant_in(folder / part):  # whoever has it in half precision only is content with that
            download(name, f"{part}/*.safetensors", leave_out=("*.fp16*", "*.non_ema*"))
        if not weight_files(folder / part):
            download(name, f"{part}/*.fp16*.safetensors")
    return folder


def download(hub_id: str, *patterns: str, leave_out: tuple[str, ...] = ()) -> Path:
    """The snapshot of a hub id with the files of these patterns; offline, with those that were downloaded before."""
    from huggingface_hub import snapshot_download

    try:
        with quiet():
            return Path(snapshot_download(hub_id, allow_patterns=list(patterns), ignore_patterns=list(leave_out)))
    except Exception as error:  # the hub fails in many ways: offline, gated, misspelt
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"the model {hub_id!r} is not here, and could not be fetched from the hub. Put a model into "
            f"models/checkpoints, press R, and choose it in checkpoint. ({reason})"
        ) from error


def variant_in(folder: Path) -> dict[str, str]:
    """The option for a component whose weights are there in half precision only: ``*.fp16.safetensors``."""
    files = weight_files(folder)
    return {"variant": variant_of(files[0])} if files and variant_of(files[0]) else {}
