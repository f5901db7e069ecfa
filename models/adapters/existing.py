"""An existing adapter file, whoever made it, to be trained further."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...files.weights import check_weights, read_metadata, read_weights
from ...files.whole import read_object
from ...hosts.host import Host
from ..families import PretrainedModel
from ..loading.model_files import find_model
from .layers import LayerAdapter
from .names import Names
from .reading import TEXT_ENCODERS, Reading, from_file
from .saved import NORM_OF_FROZEN, SETTINGS, with_trained_scales

log = logging.getLogger(__name__)


def find_lora(host: Host, name: str) -> Path:
    """The file of that name: in the loras folders, a path, a path below the output folder, or a run's folder.

    Raises ValueError if there is none, or several.
    """
    found = Path(find_model(host, name, "loras"))
    if not found.exists():
        found = host.output_folder / name
    if found.is_file():
        return found
    for folder in (found, found / "model"):
        files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
        if len(files) == 1:
            return files[0]
        if files:
            raise ValueError(f"{str(folder)!r} holds {', '.join(file.name for file in files)}: name one of them")
    raise ValueError(f"there is no LoRA file {name!r} in the loras folder, as a path or below the output folder")


def read_lora(path: Path, names: Names, kind: type[PretrainedModel]) -> dict[str, LayerAdapter]:
    """The adapter in a file, by diffusers' names of this network's layers.

    Raises ValueError where the file does not fit the network.
    """
    tensors = read_weights(path)
    try:
        text_settings = {part: peft_settings(path, part) for part in kind.trainable_text_parts}
        found = from_file(tensors, names, peft_settings(path, kind.network_part), text_settings)
        if found.unknown and (converted := by_diffusers(tensors, kind)):
            found = min(found, from_file(converted, names), key=lambda reading: len(reading.unknown))
    except ValueError as error:
        raise ValueError(f"{path.name} cannot be continued: {error}") from error
    refuse_misfits(path, found, len(tensors), kind)
    refuse_magnitudes_of_inputs(path, tensors)
    if found.text_encoders:
        log.warning(
            "%s: its %d tensors for text encoders are left out, which are not trained here",
            path.name,
            found.text_encoders,
        )
    metadata = read_metadata(path)
    adapter = with_trained_scales(found.adapter, metadata)
    return {layer: replace(part, norm_of_frozen=NORM_OF_FROZEN in metadata) for layer, part in adapter.items()}


def refuse_magnitudes_of_inputs(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Raises ValueError for a DoRA that LyCORIS trained with ``wd_on_out=False``: a magnitude for each input."""
    for key, value in tensors.items():
        if key.endswith(".dora_scale") and value.ndim > 1 and value.shape[0] == 1 < value.numel():
            raise ValueError(
                f"{path.name} cannot be continued: its DoRA has a magnitude for each input of a layer (LyCORIS with "
                f"wd_on_out off), e.g. {key}, and only one for each output can be trained here; begin a new LoRA"
            )


def text_tensors_in(path: Path) -> int:
    """How many tensors of a file are for text encoders."""
    from safetensors import safe_open

    check_weights(path)
    with safe_open(path, framework="pt") as file:
        names: list[str] = list(file.keys())
    return sum(name.startswith(TEXT_ENCODERS) for name in names)


def refuse_misfits(path: Path, found: Reading, count: int, kind: type[PretrainedModel]) -> None:
    if found.unknown:
        raise ValueError(
            f"{path.name} does not fit {kind.title}: {len(found.unknown)} of its {count} keys have no layer there, "
            f"e.g. {found.unknown[0]}; was it made for another model?"
        )
    if found.misfits:
        raise ValueError(
            f"{path.name} does not fit {kind.title}: {len(found.misfits)} layers have another size there or are "
            f"incomplete, e.g. {found.misfits[0]}; was it made for another model?"
        )
    if not found.adapter:
        raise ValueError(f"{path.name} has no LoRA for the network in it")


def peft_settings(path: Path, part: str) -> dict[str, Any]:
    """peft's settings of the adapter for that part of the pipeline, in the file or in adapter_config.json beside it."""
    known = read_metadata(path).get(SETTINGS)
    if known:
        start = f"{part}."
        return {key.removeprefix(start): value for key, value in json.loads(known).items() if key.startswith(start)}
    beside = path.with_name("adapter_config.json")
    return read_object(beside) if beside.is_file() else {}


def by_diffusers(tensors: Mapping[str, Tensor], kind: type[PretrainedModel]) -> dict[str, Tensor]:
    """The file as diffusers' converters for this pipeline understand it; empty where they do not."""
    try:
        state = kind.pipeline().lora_state_dict(dict(tensors))
    except Exception:  # every family has its own converters, which fail in many ways on what they do not know
        return {}
    weights, alphas = (state[0], state[1] or {}) if isinstance(state, tuple) else (state, {})
    return {**weights, **{key: torch.as_tensor(value) for key, value in alphas.items()}}
