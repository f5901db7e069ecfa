"""Model folders on disk: configuration, weights as safetensors, and the noise schedule they were trained with.

Nothing is ever unpickled, and nothing half-written is left: files are written beside their place and then moved.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..diffusion.schedules import DDPM, FlowMatching, Schedule
from .models import FAMILIES, Model

WEIGHTS = "diffusion_pytorch_model.safetensors"
CONFIG = "config.json"
SCHEDULE = "schedule.json"
CHECKPOINTS = "checkpoints"
"""The folder of a run with copies of the model on the way: ``step_000100`` ..."""

SCHEDULES: dict[str, type[Schedule]] = {"flow_matching": FlowMatching, "ddpm": DDPM}


def writable(folder: Path) -> Path:
    """The folder, made if need be; raises ValueError if nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        reason = error.strerror or error
        raise ValueError(f"cannot write in {str(folder)!r} ({reason}): choose another output folder") from error


@contextmanager
def whole_or_nothing(path: Path) -> Iterator[Path]:
    """A temporary place beside ``path``, for a file or a folder, that takes its place once all is written."""
    writable(path.parent)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as nearby:
        unfinished = Path(nearby) / path.name
        yield unfinished
        previous = Path(nearby) / "previous"
        if path.is_dir():
            path.rename(previous)
        try:
            os.replace(unfinished, path)
        except BaseException:
            if previous.is_dir():  # else it would go with the temporary place
                previous.rename(path)
            raise


def write_text(path: Path, text: str) -> None:
    with whole_or_nothing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def save_weights(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file; ``metadata`` may hold the ``workflow`` that a canvas reads back."""
    from safetensors.torch import save_file

    with whole_or_nothing(path) as unfinished:
        kept = {name: value.detach().contiguous() for name, value in tensors.items()}
        save_file(kept, unfinished, {"format": "pt", **metadata})


def save_checked(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """As :func:`save_weights`, for files that people take away: read again, to the bit, before it takes its place.

    Raises ValueError if it is not what was meant to be written.
    """
    with whole_or_nothing(path) as unfinished:
        save_weights(unfinished, tensors, metadata)
        verify_weights(unfinished, tensors, metadata)


def verify_weights(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Raises ValueError if a file does not hold these; one tensor at a time is in memory."""
    from safetensors import safe_open

    if not (metadata.items() <= read_metadata(path).items()):
        raise ValueError(f"{path.name} was not written as it should be: its metadata differ")
    with safe_open(path, framework="pt") as file:
        names = set(file.keys())
        wrong = names ^ tensors.keys() or {
            name for name in names if not same_bits(file.get_tensor(name), tensors[name])
        }
    if wrong:
        raise ValueError(
            f"{path.name} was not written as it should be, e.g. {min(wrong)}: is the disk full or failing?"
        )


def same_bits(first: Tensor, second: Tensor) -> bool:
    second = second.detach().cpu()
    return first.dtype == second.dtype and torch.equal(first, second)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file; raises ValueError, naming the file, if it is damaged or cut short."""
    from safetensors.torch import load_file

    check_weights(path)
    return load_file(path)


def check_weights(path: Path) -> None:
    """Look at the header only, which says how long the file must be; raises ValueError if it is not whole."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt"):
            pass
    except SafetensorError as error:
        raise ValueError(f"the weights file {path} is damaged or cut short ({error}): copy it again") from error


def read_metadata(path: Path) -> dict[str, str]:
    """The words in a safetensors file's header; raises ValueError, naming the file, if it is damaged."""
    from safetensors import safe_open

    check_weights(path)
    with safe_open(path, framework="pt") as file:
        return file.metadata() or {}


def schedule_to_dict(schedule: Schedule) -> dict[str, Any]:
    name = next(name for name, kind in SCHEDULES.items() if isinstance(schedule, kind))
    return {"type": name, **asdict(schedule)}  # type: ignore[call-overload]


def schedule_from_dict(values: Mapping[str, Any]) -> Schedule:
    fields = dict(values)
    return SCHEDULES[fields.pop("type")](**fields)


def save_model(folder: Path, model: Model, schedule: Schedule | None, metadata: Mapping[str, str]) -> Path:
    """Write what was trained as a folder, which diffusers can load too: the network, or its adapters; returns it."""
    from .adapters import save_adapters

    with whole_or_nothing(folder) as unfinished:
        unfinished.mkdir()
        if model.adapters:
            save_adapters(unfinished, model, metadata, stem_of(folder))
        else:
            model.network.save_config(unfinished)
            save_weights(unfinished / WEIGHTS, model.network.state_dict(), metadata)
        if schedule is not None:
            write_text(unfinished / SCHEDULE, json.dumps(schedule_to_dict(schedule), indent=2))
    return folder


def stem_of(folder: Path) -> str:
    """How an adapter's file in this folder is called: diffusers' default, or a checkpoint's run and step."""
    is_checkpoint = folder.parent.name == CHECKPOINTS
    return f"{folder.parent.parent.name}_{folder.name}" if is_checkpoint else "pytorch_lora_weights"


def drop_oldest(checkpoints: Path, keep: int) -> None:
    """Of a run's checkpoints leave only so many, the newest; 0 = all."""
    steps = [folder for folder in checkpoints.glob("step_*") if folder.is_dir()]
    steps.sort(key=lambda folder: int(folder.name.removeprefix("step_")))
    for folder in steps[:-keep] if keep else []:
        shutil.rmtree(folder)


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


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; raises ValueError, naming the file, if there is none."""
    if not path.is_file():
        raise ValueError(f"there is no {path}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no JSON object")
    return content


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
    load_weights(network, folder)
    return family(network)


def restore(model: Model, folder: Path) -> Model:
    """Give the model the trained weights that :func:`save_model` wrote; returns it."""
    from .adapters import restore_adapters

    if model.adapters:
        restore_adapters(folder, model)
    else:
        load_weights(model.network, folder)
    return model


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


def load_schedule(folder: Path) -> Schedule | None:
    """The noise schedule that a model folder was trained with, if it says."""
    path = folder / SCHEDULE
    if not path.is_file():
        return None
    values = read_object(path)
    try:
        return schedule_from_dict(values)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} describes no noise schedule that we know: {error}") from error


def free_folder(parent: Path, name: str) -> Path:
    """``parent/name_00001``, or the first number that is not taken."""
    number = 1
    while (folder := parent / f"{name}_{number:05d}").exists():
        number += 1
    return folder


def free_file(parent: Path, name: str) -> Path:
    """``parent/name_00001.safetensors``, or the first number that is not taken."""
    number = 1
    while (path := parent / f"{name}_{number:05d}.safetensors").exists():
        number += 1
    return path
