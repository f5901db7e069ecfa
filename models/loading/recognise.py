"""What model a folder, hub id or file is, from its small files or its header, before gigabytes are read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...diffusion.schedules import DDPM, NUM_TRAIN_TIMESTEPS, Density, FlowMatching, Schedule
from ...files.weights import header
from ...files.whole import read_object
from ..families import PRETRAINED, PretrainedModel, known_families
from ..quantization import check_installed
from .hub import local_folder
from .index import read_index
from .network_file import check_folder, check_network
from .scaled_fp8 import refuse_unknown
from .single_file import OTHER_PURPOSES, family_of_file, single_file_type
from .source import PretrainedInfo, Source
from .weight_count import weight_files

PICKLES = (".ckpt", ".bin", ".pt", ".pth")


def inspect(source: Source) -> PretrainedInfo:
    """What model this is; raises ValueError, naming the remedy, if it is none that can be trained."""
    refuse_pickle(source.path)
    for path in (source.path if source.is_file else "", *source.text_encoders):
        if path and not Path(path).is_file():
            raise ValueError(f"the file {path!r} does not exist")
    check_installed(source.quantization)
    family = family_of(source)
    refuse_unknown_prediction(source)
    home, kind = local_folder(source.home), PRETRAINED[family]
    if reason := kind.too_new():
        raise ValueError(reason)
    check_text_encoders(source, kind)
    network = read_object(home / kind.network_part / "config.json")
    refuse_inpainting(network, kind, source.path)
    if source.is_file:
        check_network(source.path, kind, home)
    else:
        refuse_pickled_folder(home / kind.network_part)
        check_folder(source.path, kind, home, kind.network_part)
    scheduler, index = kind.scheduler(home), read_index(home)
    schedule = kind.schedule(schedule_of({**scheduler, **said_by_file(source)}, kind.density, source.prediction), index)
    classes = network.get("num_embeds_ada_norm") or 0
    return PretrainedInfo(
        family,
        kind.latent_channels(network),
        classes if not kind.text_parts else 0,
        schedule,
        kind.few_steps(schedule, index, network),
    )


def family_of(source: Source) -> str:
    """The family of a model; raises ValueError where a file and its base are of two."""
    if not source.is_file:
        return family_of_folder(local_folder(source.path))
    base_family = family_of_folder(local_folder(source.base)) if source.base else ""
    family = family_of_file(source.path, base_family)
    if base_family and PRETRAINED[base_family].network_class == PRETRAINED[family].network_class:
        return base_family  # one network for several pipelines, and a file does not say for which it was trained
    if base_family and base_family != family:
        titles = PRETRAINED[family].title, PRETRAINED[base_family].title
        raise ValueError(f"base: {source.base!r} is {titles[1]}, and the file {source.path!r} is {titles[0]}")
    return family


def said_by_file(source: Source) -> dict[str, Any]:
    """What a single file says of its noise schedule: SDXL's v-prediction models carry marks, which ComfyUI reads."""
    marks = header(source.path) if source.is_file else {}
    said: dict[str, Any] = {"prediction_type": "v_prediction"} if "v_pred" in marks else {}
    return said | ({"rescale_betas_zero_snr": True} if "ztsnr" in marks else {})


def refuse_unknown_prediction(source: Source) -> None:
    """Raises ValueError for a single file of Stable Diffusion 2, of which some predict epsilon and others v.

    Their tensors are alike, and the original that diffusers would take the settings from is one that predicts v.
    """
    if not source.is_file or source.base or source.prediction != "auto":
        return
    if single_file_type(header(source.path)) == "v2":
        raise ValueError(
            f"prediction: the file {source.path!r} does not say what this Stable Diffusion 2 puts out: choose epsilon "
            "(2.0 base, 2.1 base: 512 pixels) or v_prediction (2.0, 2.1: 768 pixels)"
        )


def refuse_pickle(path: str) -> None:
    """Raises ValueError for files that may run code when they are opened."""
    if Path(path).suffix.lower() == ".gguf":
        raise ValueError(f"{path!r} is a GGUF file, which is not read here: choose the .safetensors file of the model")
    if Path(path).suffix.lower() in PICKLES:
        raise ValueError(
            f"{path!r} is a pickled file, which can run any code when it is opened; only .safetensors are read: look "
            "for the model in that format"
        )


def refuse_pickled_folder(folder: Path) -> None:
    """Raises ValueError where a component has pickled weights only."""
    if (pickled := next(folder.glob("*.bin"), None)) and not weight_files(folder):
        refuse_pickle(str(pickled))


def refuse_inpainting(network: Mapping[str, Any], kind: type[PretrainedModel], path: str) -> None:
    channels, out = network.get("in_channels"), network.get("out_channels")
    if kind.network_part == "unet" and channels != out:
        raise ValueError(
            f"{path!r} is an inpainting or depth model (it takes {channels} channels and gives {out}), whose extra "
            "inputs this trainer does not make: choose the base model instead"
        )


def check_text_encoders(source: Source, kind: type[PretrainedModel]) -> None:
    """Raises ValueError where files for text encoders do not go with the family."""
    encoders = encoders_of(kind)
    if len(source.text_encoders) > len(encoders):
        raise ValueError(f"text_encoders: {kind.title} has {len(encoders)}, and {len(source.text_encoders)} are named")
    for path in source.text_encoders:
        refuse_unknown(header(path), path)


def encoders_of(kind: type[PretrainedModel]) -> list[str]:
    """The text encoders of a family's pipeline, in its order, without what cuts texts and pictures for them."""
    return [name for name in kind.text_parts if name not in tokenizers_of(kind)]


def tokenizers_of(kind: type[PretrainedModel]) -> list[str]:
    return [name for name in kind.text_parts if "tokenizer" in name or name == "processor"]


def family_of_folder(folder: Path) -> str:
    """The family of a pipeline's folder, from its index."""
    name = str(read_index(folder).get("_class_name"))
    for family, kind in PRETRAINED.items():
        if kind.pipeline_class == name:
            return family
    purposes = OTHER_PURPOSES | {"xlimg2img": OTHER_PURPOSES["refiner"]}
    for word, what in purposes.items():
        if word in name.lower():
            raise ValueError(f"{str(folder)!r} is {what}")
    raise ValueError(f"{str(folder)!r} is a {name}, and we can train {known_families()}")


def schedule_of(scheduler: Mapping[str, Any], density: Density, prediction: str = "auto") -> Schedule:
    """The noise schedule that a scheduler's settings describe; ``prediction`` overrides what they say.

    Raises ValueError for one that we do not know.
    """
    name, steps = scheduler.get("_class_name"), scheduler.get("num_train_timesteps", NUM_TRAIN_TIMESTEPS)
    if steps != NUM_TRAIN_TIMESTEPS:
        raise ValueError(f"the scheduler {name} has {steps} training timesteps, and we know {NUM_TRAIN_TIMESTEPS}")
    if "beta_schedule" in scheduler and not scheduler.get("use_flow_sigmas"):
        return DDPM(
            beta_schedule=scheduler["beta_schedule"],
            prediction=scheduler.get("prediction_type", "epsilon") if prediction == "auto" else prediction,  # type: ignore[arg-type]
            zero_terminal_snr=scheduler.get("rescale_betas_zero_snr", False),
            beta_start=scheduler["beta_start"],
            beta_end=scheduler["beta_end"],
        )
    if "shift" in scheduler or "flow_shift" in scheduler:
        grows = scheduler.get("use_dynamic_shifting", False)
        shift = scheduler.get("shift", scheduler.get("flow_shift")) or 1.0
        return FlowMatching(
            shift=1.0 if grows else shift,
            density=density,
            base_shift=scheduler.get("base_shift", 0.5) if grows else 0.0,
            max_shift=scheduler.get("max_shift", 1.15) if grows else 0.0,
            base_tokens=scheduler.get("base_image_seq_len", 256),
            max_tokens=scheduler.get("max_image_seq_len", 4096),
            linear_shift=grows and scheduler.get("time_shift_type") == "linear",
            terminal=scheduler.get("shift_terminal") or 0.0,
        )
    raise ValueError(f"the scheduler {name} is none that we know: wire a noise schedule node instead")
