"""Pretrained models as people have them: a folder, a hub id, or one ``.safetensors`` file. diffusers does the loading.

What a model is gets known from its small files or its header, before gigabytes are read. Only safetensors are read.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from ..diffusion.schedules import DDPM, NUM_TRAIN_TIMESTEPS, Density, FlowMatching, Schedule
from .checkpoint import read_object
from .models import PRETRAINED, PretrainedModel
from .quantization import Quantization, quantization_config

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

Storage = Literal["fp32", "bf16", "fp16"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Source:
    """Where the parts of a pretrained model are, and how its network is kept in memory."""

    path: str
    """A pipeline's folder, a hub id, or a ``.safetensors`` file."""
    base: str = ""
    """For a file: folder or hub id of the pipeline that has the parts and settings which the file lacks."""
    vae: str = ""
    """Another VAE: a ``.safetensors`` file or a folder."""
    storage: Storage = "bf16"
    quantization: Quantization = "none"
    gradient_checkpointing: bool = False
    guidance: float = 1.0
    prediction: Literal["auto", "epsilon", "v_prediction"] = "auto"

    @property
    def is_file(self) -> bool:
        return Path(self.path).suffix == ".safetensors"

    @property
    def home(self) -> str:
        """The folder or hub id that has the small files: settings of the network and of the scheduler."""
        return (self.base or default_base(self.path)) if self.is_file else self.path


@dataclass(frozen=True)
class PretrainedInfo:
    """What is known of a pretrained model before its weights are read."""

    family: str
    """Its short name in ``models.PRETRAINED``."""
    channels: int
    """Channels of its latents."""
    classes: int
    """Class labels that it knows; 0 for a model that reads text."""
    schedule: Schedule

    @property
    def kind(self) -> type[PretrainedModel]:
        return PRETRAINED[self.family]


@dataclass(frozen=True)
class Pretrained:
    """A pretrained model on a wire: where it is, and what is known of it. Nothing is loaded."""

    source: Source
    info: PretrainedInfo


def inspect(source: Source) -> PretrainedInfo:
    """What model this is; raises ValueError, naming the remedy, if it is none that can be trained."""
    if source.is_file and not Path(source.path).is_file():
        raise ValueError(f"the file {source.path!r} does not exist")
    home = local_folder(source.home)
    family = family_of_file(source.path) if source.is_file else family_of_folder(home)
    kind = PRETRAINED[family]
    network = read_object(home / kind.network_part / "config.json")
    refuse_inpainting(network, kind, source.path)
    scheduler = read_object(home / "scheduler" / "scheduler_config.json")
    schedule = schedule_of(scheduler, kind.density, source.prediction)
    classes = network.get("num_embeds_ada_norm") or 0
    return PretrainedInfo(family, kind.latent_channels(network), classes if not kind.text_parts else 0, schedule)


def refuse_inpainting(network: Mapping[str, Any], kind: type[PretrainedModel], path: str) -> None:
    channels, out = network.get("in_channels"), network.get("out_channels")
    if kind.network_part == "unet" and channels != out:
        raise ValueError(
            f"{path!r} is an inpainting or depth model (it takes {channels} channels and gives {out}), whose extra "
            "inputs this trainer does not make: choose the base model instead"
        )


def local_folder(name: str) -> Path:
    """A pipeline's folder on this machine; a hub id's is looked up in the cache and its small files fetched.

    Raises ValueError where there is neither.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "model_index.json").is_file():
            raise ValueError(f"{name!r} is not a pipeline's folder: it has no model_index.json")
        return folder
    if not HUB_ID.fullmatch(name):
        raise ValueError(f"the model {name!r} does not exist: give a folder, a .safetensors file or a hub id")
    return _small_files(name)


def _small_files(hub_id: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(hub_id, allow_patterns=["*.json", "*.txt", "*.model"]))
    except Exception as error:  # the hub fails in many ways: offline, gated, misspelt
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"the model {hub_id!r} is no folder here and could not be fetched from the hub: {reason}"
        ) from error


def family_of_folder(folder: Path) -> str:
    """The family of a pipeline's folder, from its model_index.json."""
    name = read_object(folder / "model_index.json").get("_class_name")
    for family, kind in PRETRAINED.items():
        if kind.pipeline_class == name:
            return family
    raise ValueError(f"{str(folder)!r} is a {name}, and we can train {known_families()}")


def known_families() -> str:
    return ", ".join(kind.title for kind in PRETRAINED.values())


@dataclass(frozen=True)
class Header:
    """A tensor in a file that was not read: diffusers looks at names and shapes to know a checkpoint."""

    shape: tuple[int, ...]

    @property
    def ndim(self) -> int:
        return len(self.shape)


def header(path: str) -> dict[str, Header]:
    """Names and shapes of the tensors in a safetensors file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return {name: Header(tuple(file.get_slice(name).get_shape())) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"the weights file {path} is damaged or cut short ({error}): copy it again") from error


def single_file_type(path: str) -> str:
    """What diffusers calls this kind of checkpoint."""
    from diffusers.loaders.single_file_utils import infer_diffusers_model_type

    kind: str = infer_diffusers_model_type(header(path))
    return kind


def family_of_file(path: str) -> str:
    """The family of a single-file checkpoint, from its header."""
    kind = single_file_type(path)
    for family, model in PRETRAINED.items():
        if kind in model.single_file_types:
            return family
    raise ValueError(f"{path!r} looks like {kind!r}, and we can train {known_families()}")


def default_base(path: str) -> str:
    """The hub id from which diffusers completes a checkpoint of this kind."""
    from diffusers.loaders.single_file_utils import fetch_diffusers_config

    base: str = fetch_diffusers_config(header(path))["pretrained_model_name_or_path"]
    return base


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
        )
    raise ValueError(f"the scheduler {name} is none that we know: wire a noise schedule node instead")


def load_network(source: Source, info: PretrainedInfo, device: torch.device | str) -> PretrainedModel:
    """The network with its pretrained weights, on the device; raises ValueError where it cannot be loaded."""
    import diffusers

    kind = info.kind
    options: dict[str, Any] = {"torch_dtype": DTYPES[source.storage]}
    if source.quantization != "none":
        options["quantization_config"] = quantization_config(source.quantization, DTYPES[source.storage])
    loader = getattr(diffusers, kind.network_class)
    with refused(source):
        if source.is_file:
            home = str(local_folder(source.home))
            network = loader.from_single_file(source.path, config=home, subfolder=kind.network_part, **options)
        else:
            network = loader.from_pretrained(source.path, subfolder=kind.network_part, use_safetensors=True, **options)
    if source.gradient_checkpointing:
        network.enable_gradient_checkpointing()
    model = kind(network, guidance=source.guidance)
    model.to(torch.device(device))
    return model


def load_parts(source: Source, info: PretrainedInfo, names: Collection[str], **given: Any) -> DiffusionPipeline:
    """The pipeline with these components only, and those that are ``given``; the others are None.

    ``load_parts(source, info, kind.text_parts)`` encodes captions, ``load_parts(source, info, ["vae"])`` images.
    """
    import diffusers

    home = local_folder(source.home)
    pipeline = getattr(diffusers, info.kind.pipeline_class)
    parts = {name for name, value in read_object(home / "model_index.json").items() if isinstance(value, list)}
    wanted = {*names, "scheduler"} - given.keys()
    options: dict[str, Any] = dict.fromkeys(parts - wanted) | given
    options["torch_dtype"] = DTYPES[source.storage]
    if "vae" in wanted and source.vae:
        options["vae"] = load_vae(source, home)
    with refused(source):
        if source.is_file and has_parts(source.path, {*names} - options.keys()):
            return pipeline.from_single_file(source.path, config=str(home), **options)
        return pipeline.from_pretrained(source.home, use_safetensors=True, **options)


PREFIXES = {
    "vae": ("first_stage_model.", "vae."),
    "text_encoder": ("cond_stage_model.", "conditioner.", "text_encoders."),
}


def has_parts(path: str, names: Collection[str]) -> bool:
    """Whether a single file holds these components; many hold the network only."""
    tensors = list(header(path))
    groups = {group for group in PREFIXES for name in names if name.startswith(group)}
    return all(any(name.startswith(PREFIXES[group]) for name in tensors) for group in groups)


def load_vae(source: Source, home: Path) -> Any:
    """The VAE that was asked for in place of the pipeline's own."""
    import diffusers

    name = read_object(home / "model_index.json")["vae"][1]
    loader, options = getattr(diffusers, name), {"torch_dtype": DTYPES[source.storage]}
    with refused(source):
        if Path(source.vae).suffix == ".safetensors":
            return loader.from_single_file(source.vae, config=str(home), subfolder="vae", **options)
        return loader.from_pretrained(source.vae, use_safetensors=True, **options)


@contextmanager
def refused(source: Source) -> Iterator[None]:
    """diffusers fails in many ways; each becomes one line that names the model."""
    try:
        yield
    except (OSError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"the model {source.path!r} cannot be loaded: {reason or type(error).__name__}") from error
