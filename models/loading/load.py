"""Loading pretrained models with diffusers: the network, or some parts of its pipeline. Only safetensors are read."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch

from ...files.weights import header, read_weights
from ...files.whole import read_object
from ..attention import attend_by
from ..families import PretrainedModel
from ..quantization import loading_options, squeeze
from ..quiet import quiet
from ..swapping import Swap
from .hub import local_folder, variant_in
from .index import check_complete, parts_of, read_index
from .network_file import check_folder, readable, readable_names, without
from .scaled_fp8 import is_scaled, read_meant
from .single_file import PARTS, parts_in

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
from .recognise import encoders_of, tokenizers_of
from .source import DTYPES, PretrainedInfo, Source


def number_format(dtype: torch.dtype) -> dict[str, torch.dtype]:
    """diffusers' option for a number format, which it called ``torch_dtype`` before 0.40."""
    import diffusers
    from packaging.version import Version

    return {"dtype" if Version(diffusers.__version__) >= Version("0.40") else "torch_dtype": dtype}


def load_network(source: Source, info: PretrainedInfo, device: torch.device | str) -> PretrainedModel:
    """The network with its pretrained weights, on the device; raises ValueError where it cannot be loaded."""
    kind = info.kind
    network = read_network(source, kind, kind.network_part, "cpu" if source.swap else device)
    attend_by(network, source.attention, device)
    model = kind(network, guidance=source.guidance)
    if source.swap:
        model.swap = Swap(network, source.swap, torch.device(device), kind.always_there)
    elif source.gradient_checkpointing:
        network.enable_gradient_checkpointing()
    model.to(torch.device(device))
    return model


def read_network(source: Source, kind: type[PretrainedModel], part: str, device: torch.device | str) -> Any:
    """The network in that part of the pipeline, kept as ``source`` says; squeezed on the device, if at all."""
    import diffusers

    loader, dtype, in_file = getattr(diffusers, kind.network_class), DTYPES[source.storage], source.is_file
    in_file = in_file and part == kind.network_part
    options: dict[str, Any] = number_format(dtype) | loading_options(source.quantization, dtype)
    home = local_folder(source.home, *([] if in_file else [part]))
    with refused(source), quiet():
        if in_file:
            with readable_names(kind):
                network = loader.from_single_file(
                    readable(source.path, kind, home, dtype), config=str(home), subfolder=part, **options
                )
        else:
            check_folder(source.home, kind, home, part)
            options |= variant_in(home / part)
            network = loader.from_pretrained(home, subfolder=part, use_safetensors=True, **options)
    squeeze(network, source.quantization, device)
    return network


def load_parts(source: Source, info: PretrainedInfo, names: Collection[str], **given: Any) -> DiffusionPipeline:
    """The pipeline with these components only, and those that are ``given``; the others are None.

    ``load_parts(source, info, kind.text_parts)`` encodes captions, ``load_parts(source, info, ["vae"])`` images. Where
    the network is not among them, something with the network's ``config`` stands in for it: pipelines ask it. Of a
    network that guides, the weights are kept as the trained one's are.
    """
    home, pipeline_class = local_folder(source.home), info.kind.pipeline()
    index = read_index(home)
    parts = parts_of(index).keys()
    own = {name: load for name, load in info.kind.own_parts(home).items() if name in {*names} - given.keys()}
    wanted = ({*names, "scheduler"} & parts) - own.keys()
    if info.kind.guide_part in {*names} & parts and info.kind.guide_part not in given:
        given = {**given, info.kind.guide_part: read_network(source, info.kind, info.kind.guide_part, "cpu")}
    absent = dict.fromkeys((*parts, *info.kind.text_parts))  # an index may lack what is loaded otherwise
    options: dict[str, Any] = absent | given | replacements(source, info, wanted - given.keys(), home)
    missing = {name for name in wanted if options[name] is None and index[name][0]}
    in_file = missing & {*parts_in(source.path), info.kind.network_part} if source.is_file else set()
    dtype = number_format(DTYPES[source.storage])
    in_base = missing - in_file
    local_folder(source.home, *(name for name in in_base if name not in ("scheduler", *tokenizers_of(info.kind))))
    check_complete(home, in_base)
    with refused(source), quiet():
        from_base = {name: value for name, value in options.items() if name not in in_base}
        variant = next((found for name in sorted(in_base) if (found := variant_in(home / name))), {})
        pipeline = pipeline_class.from_pretrained(home, use_safetensors=True, **from_base, **dtype, **variant)
        if in_file:
            from_file = {name: value for name, value in pipeline.components.items() if name not in in_file}
            pipeline = pipeline_class.from_single_file(source.path, config=str(home), **from_file, **dtype)
        pipeline.register_modules(**{name: load() for name, load in own.items()})
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
            found[name] = load_text_encoder(source, info.kind, home, name, path)
    beside = {*info.kind.parts_in_file} & parts_in(source.path) if source.is_file else set()
    return found | {name: load_beside(source, home, name) for name in beside & {*wanted} - found.keys()}


def load_beside(source: Source, home: Path, name: str) -> Any:
    """A component that the network's file brings along, by the names of diffusers' own class."""
    import diffusers

    loader: Any = getattr(diffusers, read_index(home)[name][1])
    tensors = read_meant(source.path, DTYPES[source.storage])
    weights = {key: value for start in PARTS[name] for key, value in without(start, tensors).items()}
    with refused(source), quiet():
        part = loader.from_config(loader.load_config(home / name))
        part.load_state_dict(weights)
    return part.to(DTYPES[source.storage]).eval()


def load_vae(source: Source, home: Path) -> Any:
    """The VAE that was asked for in place of the pipeline's own."""
    import diffusers

    name = read_index(home)["vae"][1]
    loader, options = getattr(diffusers, name), number_format(DTYPES[source.storage])
    with refused(source), quiet():
        if Path(source.vae).suffix == ".safetensors":
            return loader.from_single_file(source.vae, config=str(home), subfolder="vae", **options)
        return loader.from_pretrained(source.vae, use_safetensors=True, **options)


def load_text_encoder(source: Source, family: type[PretrainedModel], home: Path, name: str, path: str) -> Any:
    """A text encoder with the pipeline's settings and the weights of a file, in transformers' names.

    Raises ValueError, naming a tensor, where the file does not hold all that reading captions needs.
    """
    import transformers

    if name not in (index := read_index(home)):
        raise ValueError(f"text_encoders: the folder {home.name!r} has no {name} whose settings the file could go with")
    kind, scaled = getattr(transformers, index[name][1]), is_scaled(header(path))
    weights = read_meant(path, DTYPES[source.storage]) if scaled else read_weights(Path(path))
    with refused(source), quiet():
        config = kind.config_class.from_pretrained(home / name)
        encoder, report = kind.from_pretrained(
            None, config=config, state_dict=family.text_weights(weights),
            dtype=DTYPES[source.storage], output_loading_info=True, ignore_mismatched_sizes=True,
        )  # fmt: skip
    missing = [key for key in report["missing_keys"] if not key.startswith(family.unread)]
    if wrong := sorted([*missing, *(key for key, *_ in report["mismatched_keys"])]):
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
