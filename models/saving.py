"""Model folders on disk: configuration, weights as safetensors, and the noise schedule of the training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..diffusion.schedules import Schedule
from ..files.weights import read_weights, save_weights
from ..files.whole import read_object, remove_folder, whole_or_nothing, write_text
from .adapters.saved import restore_adapters, save_adapters
from .families import FAMILIES
from .hosted import HostedNetwork
from .model import NULL_CLASS, Model
from .schedule_file import SCHEDULE_FILE, schedule_to_dict
from .sharded import whole

WEIGHTS = "diffusion_pytorch_model.safetensors"


CONFIG = "config.json"

CHECKPOINTS = "checkpoints"
"""The folder of a run with copies of the model on the way: ``step_000100`` ..."""


def weights_of(model: Model, kept: bool = True) -> dict[str, Tensor]:
    """What was trained, on the CPU, where each process holds a part of the weights; all ask, one has it ``kept``."""
    found = {}
    for name, value in model.network.state_dict().items():
        if not model.adapters or any(part in model.adapters for part in name.split(".")):
            together = whole(value)
            if kept:
                found[name] = together.cpu()
    return found


def save_model(
    folder: Path,
    model: Model,
    schedule: Schedule | None,
    metadata: Mapping[str, str],
    weights: Mapping[str, Tensor] | None = None,
) -> Path:
    """Write what was trained as a folder, which diffusers can load too: the network, or its adapters; returns it.

    ``weights`` (:func:`weights_of`) are written in place of the network's own.
    """
    with whole_or_nothing(folder) as unfinished:
        unfinished.mkdir()
        if isinstance(model, HostedNetwork):
            save_weights(unfinished / f"{stem_of(folder)}.safetensors", model.network.state_dict(), metadata)
        elif model.adapters:
            save_adapters(unfinished, model, metadata, stem_of(folder), weights)
        else:
            if hasattr(model.network, "save_config"):  # a network of one's own may be any module
                model.network.save_config(unfinished)
                if weights is not None:  # FSDP has put a class of its own in the place of the network's
                    config = {**read_object(unfinished / CONFIG), "_class_name": model.network_class}
                    write_text(unfinished / CONFIG, json.dumps(config, indent=2))
            save_weights(unfinished / WEIGHTS, weights or model.network.state_dict(), metadata)
        if schedule is not None:
            write_text(unfinished / SCHEDULE_FILE, json.dumps(schedule_to_dict(schedule), indent=2))
    return folder


def stem_of(folder: Path) -> str:
    """How an adapter's file in this folder is called: diffusers' default, or a checkpoint's run and step."""
    is_checkpoint = folder.parent.name == CHECKPOINTS
    return f"{folder.parent.parent.name}_{folder.name}" if is_checkpoint else "pytorch_lora_weights"


def drop_oldest(checkpoints: Path, keep: int) -> None:
    """Of a run's checkpoints leave only so many, the newest; 0 = all."""
    steps = [path for path in checkpoints.glob("step_*") if path.is_dir() and path.name[5:].isdecimal()]
    steps.sort(key=lambda folder: int(folder.name.removeprefix("step_")))
    for folder in steps[:-keep] if keep else []:
        remove_folder(folder)


def check_model_folder(folder: Path) -> dict[str, Any]:
    """The configuration of a model folder; raises ValueError, before any weights are read, if it is not one."""
    if not folder.is_dir():
        raise ValueError(f"the model folder {str(folder)!r} does not exist")
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise ValueError(f"{str(folder)!r} is not a model folder: it has no {name}")
    config = read_object(folder / CONFIG)
    if _family(config) is None:
        known = ", ".join(family.network_class for family in FAMILIES.values())
        raise ValueError(f"{folder / CONFIG} describes a {config.get('_class_name')}, and we can train {known}")
    for name in ("in_channels", "sample_size"):
        if not isinstance(config.get(name), int):
            raise ValueError(f"{folder / CONFIG} does not say {name}, a whole number")
    return config


def _family(config: Mapping[str, Any]) -> type[Model] | None:
    return next((kind for kind in FAMILIES.values() if kind.network_class == config.get("_class_name")), None)


def load_model(folder: Path) -> Model:
    """A model from a folder that :func:`save_model` wrote."""
    import diffusers

    config = check_model_folder(folder)
    family = _family(config)
    assert family is not None
    try:
        network = getattr(diffusers, family.network_class).from_config(config)
    except Exception as error:  # diffusers checks its settings in many ways
        raise ValueError(f"{folder / CONFIG} describes no working network: {' '.join(str(error).split())}") from error
    if config.get(NULL_CLASS):
        network.register_to_config(**{NULL_CLASS: True})
    load_weights(network, folder)
    return family(network)


def restore(model: Model, folder: Path) -> Model:
    """Give the model the trained weights that :func:`save_model` wrote; returns it."""
    if isinstance(model, HostedNetwork):
        load_adapter(model.network, hosted_file(folder))
    elif model.adapters:
        restore_adapters(folder, model)
    else:
        load_weights(model.network, folder)
    return model


def hosted_file(folder: Path) -> Path:
    """The file in a model folder that holds the adapter of a HostedNetwork, by the host's names."""
    files = sorted(folder.glob("*.safetensors"))
    if len(files) != 1:
        raise ValueError(f"{str(folder)!r} holds {len(files)} weights files, and not one adapter")
    return files[0]


def load_adapter(network: nn.Module, path: Path) -> None:
    """Give the adapters of a HostedNetwork these weights; raises ValueError where they do not fit."""
    weights = read_weights(path)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit this model and its adapter") from error


def load_weights(network: nn.Module, folder: Path) -> None:
    """Load a model folder's weights, in their number format; raises ValueError where they do not fit the network."""
    weights = read_weights(folder / WEIGHTS)
    wanted = {name: value.shape for name, value in network.state_dict().items()}
    given = {name: value.shape for name, value in weights.items()}
    if wrong := sorted(name for name in wanted | given if wanted.get(name) != given.get(name)):
        raise ValueError(
            f"{folder / WEIGHTS} does not fit its {CONFIG}: "
            f"{len(wrong)} tensors are missing, unknown or of another shape, e.g. {wrong[0]}"
        )
    for name, weight in network.named_parameters():
        weight.data = weight.data.to(weights[name].dtype)  # a base in 16 bits was trained in 32
    network.load_state_dict(weights)
