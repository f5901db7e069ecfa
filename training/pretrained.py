"""Pretrained models as people have them: a folder, a hub id, or one ``.safetensors`` file. diffusers does the loading.

What a model is gets known from its small files or its header, before gigabytes are read. Only safetensors are read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal

import torch

from ..diffusion.schedules import DDPM, NUM_TRAIN_TIMESTEPS, Density, FlowMatching, Schedule
from .checkpoint import read_object, read_weights
from .hub import local_folder, variant_in
from .models import PRETRAINED, PretrainedModel, known_families
from .quantization import Quantization, check_installed, loading_options, squeeze
from .quiet import quiet
from .single_file import (
    OTHER_PURPOSES,
    default_base,
    family_of_file,
    header,
    parts_in,
    refuse_scaled,
    single_file_type,
)
from .weight_count import count_weights, in_words, network_bytes, weight_files

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

Storage = Literal["fp32", "bf16", "fp16"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

PICKLES = (".ckpt", ".bin", ".pt", ".pth")


@dataclass(frozen=True)
class Source:
    """Where the parts of a pretrained model are, and how its network is kept in memory."""

    path: str
    """A pipeline's folder, a hub id, or a ``.safetensors`` file."""
    base: str = ""
    """For a file: folder or hub id of the pipeline that has the parts and settings which the file lacks."""
    vae: str = ""
    """Another VAE: a ``.safetensors`` file or a folder."""
    text_encoders: tuple[str, ...] = ()
    """Other weights for the text encoders: ``.safetensors`` files, in the pipeline's order."""
    storage: Storage = "bf16"
    quantization: Quantization = "none"
    gradient_checkpointing: bool = False
    guidance: float = 1.0
    prediction: Literal["auto", "epsilon", "v_prediction"] = "auto"
    clip_skip: int = 0
    """Which layer of CLIP is read, counted from the last, 1; 0 = as the family does. Stable Diffusion 1.x and 2.x."""

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

    def weights(self) -> dict[str, int]:
        """How many weights each component has, as far as their files are on this machine (see weight_count.py)."""
        return count_weights(self.source, self.info, local_folder(self.source.home))

    def in_words(self) -> str:
        """``Stable Diffusion XL, 2.57 B weights, 5.1 GB in bf16``."""
        kind, count = self.info.kind, self.weights().get(self.info.kind.network_part)
        if not count:
            return f"{kind.title}, to be downloaded"
        kept = self.source.storage if self.source.quantization == "none" else self.source.quantization
        size = in_words(network_bytes(self.source, count), "B")
        return f"{kind.title}, {in_words(count)} weights, {size} in {kept}"


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
    check_text_encoders(source, kind)
    network = read_object(home / kind.network_part / "config.json")
    refuse_inpainting(network, kind, source.path)
    if not source.is_file:
        refuse_pickled_folder(home / kind.network_part)
    scheduler = read_object(home / "scheduler" / "scheduler_config.json")
    schedule = schedule_of(scheduler | said_by_file(source), kind.density, source.prediction)
    classes = network.get("num_embeds_ada_norm") or 0
    return PretrainedInfo(family, kind.latent_channels(network), classes if not kind.text_parts else 0, schedule)


def family_of(source: Source) -> str:
    """The family of a model; raises ValueError where a file and its base are of two."""
    if not source.is_file:
        return family_of_folder(local_folder(source.path))
    base_family = family_of_folder(local_folder(source.base)) if source.base else ""
    family = family_of_file(source.path, base_family)
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
        refuse_scaled(header(path), path)


def encoders_of(kind: type[PretrainedModel]) -> list[str]:
    """The text encoders of a family's pipeline, in its order, without the tokenizers."""
    return [name for name in kind.text_parts if not name.startswith("tokenizer")]


def tokenizers_of(kind: type[PretrainedModel]) -> list[str]:
    return [name for name in kind.text_parts if name.startswith("tokenizer")]


def family_of_folder(folder: Path) -> str:
    """The family of a pipeline's folder, from its model_index.json."""
    name = str(read_object(folder / "model_index.json").get("_class_name"))
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
        )
    raise ValueError(f"the scheduler {name} is none that we know: wire a noise schedule node instead")


def number_format(dtype: torch.dtype) -> dict[str, torch.dtype]:
    """diffusers' option for a number format, which it called ``torch_dtype`` before 0.40."""
    import diffusers
    from packaging.version import Version

    return {"dtype" if Version(diffusers.__version__) >= Version("0.40") else "torch_dtype": dtype}


def load_network(source: Source, info: PretrainedInfo, device: torch.device | str) -> PretrainedModel:
    """The network with its pretrained weights, on the device; raises ValueError where it cannot be loaded."""
    import diffusers

    kind, dtype = info.kind, DTYPES[source.storage]
    options: dict[str, Any] = number_format(dtype) | loading_options(source.quantization, dtype)
    loader, part = getattr(diffusers, kind.network_class), kind.network_part
    home = local_folder(source.home, *([] if source.is_file else [part]))
    with refused(source), quiet():
        if source.is_file:
            network = loader.from_single_file(source.path, config=str(home), subfolder=part, **options)
        else:
            options |= variant_in(home / part)
            network = loader.from_pretrained(home, subfolder=part, use_safetensors=True, **options)
    squeeze(network, source.quantization, device)
    if source.gradient_checkpointing:
        network.enable_gradient_checkpointing()
    model = kind(network, guidance=source.guidance)
    model.to(torch.device(device))
    return model


def load_parts(source: Source, info: PretrainedInfo, names: Collection[str], **given: Any) -> DiffusionPipeline:
    """The pipeline with these components only, and those that are ``given``; the others are None.

    ``load_parts(source, info, kind.text_parts)`` encodes captions, ``load_parts(source, info, ["vae"])`` images. Where
    the network is not among them, something with the network's ``config`` stands in for it: pipelines ask it.
    """
    import diffusers

    home = local_folder(source.home)
    pipeline_class = getattr(diffusers, info.kind.pipeline_class)
    index = read_object(home / "model_index.json")
    parts = {name for name, value in index.items() if isinstance(value, list)}
    wanted = {*names, "scheduler"} & parts
    options: dict[str, Any] = dict.fromkeys(parts) | given | replacements(source, info, wanted - given.keys(), home)
    missing = {name for name in wanted if options[name] is None and index[name][0]}
    in_file = missing & {*parts_in(source.path), info.kind.network_part} if source.is_file else set()
    dtype = number_format(DTYPES[source.storage])
    in_base = missing - in_file
    local_folder(source.home, *(name for name in in_base if name not in ("scheduler", *tokenizers_of(info.kind))))
    with refused(source), quiet():
        from_base = {name: value for name, value in options.items() if name not in in_base}
        variant = next((found for name in sorted(in_base) if (found := variant_in(home / name))), {})
        pipeline = pipeline_class.from_pretrained(home, use_safetensors=True, **from_base, **dtype, **variant)
        if in_file:
            from_file = {name: value for name, value in pipeline.components.items() if name not in in_file}
            pipeline = pipeline_class.from_single_file(source.path, config=str(home), **from_file, **dtype)
    if getattr(pipeline, "text_encoder", None) is not None:
        info.kind.skip_layers(pipeline, source.clip_skip)
    if getattr(pipeline, info.kind.network_part) is None:
        config = SimpleNamespace(**read_object(home / info.kind.network_part / "config.json"))
        setattr(pipeline, info.kind.network_part, SimpleNamespace(config=config))
    return pipeline


def replacements(source: Source, info: PretrainedInfo, wanted: Collection[str], home: Path) -> dict[str, Any]:
    """The components among those ``wanted`` that are to be taken from elsewhere."""
    found: dict[str, Any] = {}
    if source.vae and "vae" in wanted:
        found["vae"] = load_vae(source, home)
    for name, path in zip(encoders_of(info.kind), source.text_encoders, strict=False):
        if name in wanted:
            found[name] = load_text_encoder(source, home, name, path)
    return found


def load_vae(source: Source, home: Path) -> Any:
    """The VAE that was asked for in place of the pipeline's own."""
    import diffusers

    name = read_object(home / "model_index.json")["vae"][1]
    loader, options = getattr(diffusers, name), number_format(DTYPES[source.storage])
    with refused(source), quiet():
        if Path(source.vae).suffix == ".safetensors":
            return loader.from_single_file(source.vae, config=str(home), subfolder="vae", **options)
        return loader.from_pretrained(source.vae, use_safetensors=True, **options)


def load_text_encoder(source: Source, home: Path, name: str, path: str) -> Any:
    """A text encoder with the pipeline's settings and the weights of a file, in transformers' names.

    Raises ValueError, naming a tensor, where the file does not hold all that the encoder needs.
    """
    import transformers

    kind = getattr(transformers, read_object(home / "model_index.json")[name][1])
    with refused(source), quiet():
        config = kind.config_class.from_pretrained(home / name)
        encoder, report = kind.from_pretrained(
            None, config=config, state_dict=read_weights(Path(path)), dtype=DTYPES[source.storage],
            output_loading_info=True, ignore_mismatched_sizes=True,
        )  # fmt: skip
    if wrong := sorted([*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])]):
        raise ValueError(f"text_encoders: {path!r} does not fit {name}: it lacks {len(wrong)} tensors, e.g. {wrong[0]}")
    return encoder


@contextmanager
def refused(source: Source) -> Iterator[None]:
    """diffusers fails in many ways; each becomes one line that names the model."""
    try:
        yield
    except (OSError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"the model {source.path!r} cannot be loaded: {reason or type(error).__name__}") from error
