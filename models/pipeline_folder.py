"""A fine-tuned model as others load it: a whole diffusers pipeline, or the network alone in one file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path

from torch import Tensor

from ..diffusion.schedules import DDPM, Schedule
from ..files.weights import save_checked
from ..files.whole import read_object, whole_or_nothing, write_text
from .loading.index import INDEX, index_file, parts_of, read_index
from .loading.load import load_parts, local_folder, variant_in
from .loading.pretrained import Pretrained
from .loading.source import Source
from .saving import CONFIG, WEIGHTS
from .schedule_file import SCHEDULE_FILE, schedule_to_dict

NO_SAFETENSORS = ("*.bin", "*.ckpt", "*.pt", "*.pth", "*.msgpack", "*.onnx", "*.h5")
"""Weights in formats that are never read here, so never handed on."""

IN_ONE_FILE = ("UNet2DConditionModel", "SD3Transformer2DModel", "FluxTransformer2DModel")
"""Networks that ComfyUI loads from a file with diffusers' names."""


def save_pipeline(
    folder: Path,
    pretrained: Pretrained,
    weights: Mapping[str, Tensor],
    schedule: Schedule | None,
    metadata: Mapping[str, str],
) -> Path:
    """Write the model that was fine-tuned as a pipeline's folder, with all other parts of the original; returns it."""
    home, part = local_folder(pretrained.source.home), pretrained.info.kind.network_part
    with whole_or_nothing(folder) as unfinished:
        unfinished.mkdir()
        save_other_parts(unfinished, pretrained, home)
        (unfinished / part).mkdir()
        shutil.copy(home / part / CONFIG, unfinished / part / CONFIG)
        save_checked(unfinished / part / WEIGHTS, weights, metadata)
        if schedule is not None:
            write_text(unfinished / SCHEDULE_FILE, json.dumps(schedule_to_dict(schedule), indent=2))
            write_scheduler(unfinished / "scheduler" / "scheduler_config.json", schedule)
        write_index(unfinished, home)
    return folder


def save_other_parts(folder: Path, pretrained: Pretrained, home: Path) -> None:
    """Text encoders, VAE and the like: copied where they are files here as they shall be, else loaded and saved."""
    source, info = pretrained.source, pretrained.info
    others = [name for name in parts_of(read_index(home)) if name != info.kind.network_part]
    if not source.is_file and Path(source.path).expanduser().is_dir() and not is_changed(source, home, others):
        for name in others:
            if (home / name).is_dir():
                shutil.copytree(home / name, folder / name, ignore=shutil.ignore_patterns(*NO_SAFETENSORS))
        return
    own = info.kind.own_parts(home)
    for name in own:
        shutil.copytree(home / name, folder / name)
    others = [name for name in others if name not in own]
    for name, part in load_parts(source, info, others).components.items():  # type: ignore[attr-defined]
        if name in others and hasattr(part, "save_pretrained"):
            part.save_pretrained(folder / name)


def is_changed(source: Source, home: Path, others: Collection[str]) -> bool:
    """Whether parts come from elsewhere, or lie there under the names of a variant (fp16)."""
    return bool(source.vae or source.text_encoders or any(variant_in(home / name) for name in others))


def write_index(folder: Path, home: Path) -> None:
    """The pipeline's index, without the parts that are not there."""
    path = index_file(home) or home / INDEX
    index = read_object(path)
    absent = {name: [None, None] for name in parts_of(index) if not (folder / name).is_dir()}
    write_text(folder / path.name, json.dumps(index | absent, indent=2))


def write_scheduler(path: Path, schedule: Schedule) -> None:
    """Let the sampler know what a diffusion model was trained to predict, and on which noise levels."""
    if not isinstance(schedule, DDPM) or not path.is_file():
        return
    trained = {
        "prediction_type": schedule.prediction,
        "rescale_betas_zero_snr": schedule.zero_terminal_snr,
        "beta_schedule": schedule.beta_schedule,
        "beta_start": schedule.beta_start,
        "beta_end": schedule.beta_end,
    }
    write_text(path, json.dumps(read_object(path) | trained, indent=2))


def save_single_file(
    path: Path, pretrained: Pretrained, weights: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> Path:
    """Write the network alone, by diffusers' names, for ComfyUI's Load Diffusion Model; returns the path.

    Raises ValueError for a network that ComfyUI does not know by these names.
    """
    kind = pretrained.info.kind
    if kind.network_class not in IN_ONE_FILE:
        raise ValueError(f"format: ComfyUI knows no single file of {kind.title} with diffusers' names; choose folder")
    save_checked(path, weights, metadata)
    return path
