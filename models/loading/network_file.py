"""The network in a single file: by whose names its tensors go, and whether they are all there, before any is read."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ...files.weights import Header, header, read_weights
from ...files.whole import read_object
from ..families import PretrainedModel
from .scaled_fp8 import is_scaled, network_header, read_meant
from .weight_count import weight_files

PREFIXES = ("", "model.diffusion_model.", "diffusion_model.", "transformer.", "unet.", "model.", "net.")
"""What may stand before the names in a file of a network, diffusers' or a family's original ones."""

Shapes = Mapping[str, tuple[int, ...]]


def check_network(path: str, kind: type[PretrainedModel], home: Path) -> None:
    """Raises ValueError, naming a tensor, where the file does not hold the whole network of the pipeline ``home``."""
    tensors, wanted = network_header(path), shapes_of(kind, home)
    prefix = prefix_before(tensors, wanted, kind.original_mark)
    found = converted(path, tensors, kind, home) if prefix is None else without(prefix, tensors)
    given = {name: tuple(value.shape) for name, value in found.items()}
    wrong = sorted(name for name, shape in wanted.items() if given.get(name) != shape)
    if not wrong:
        return
    name, foreign = wrong[0], sorted(given.keys() - wanted.keys())
    has = f"has {given[name]} in place of {wanted[name]}" if name in given else "is missing"
    also = f", and {len(foreign)} are foreign, e.g. {foreign[0]}" if foreign else ""
    raise ValueError(
        f"the file {path!r} is not the whole network of a {kind.title} like {home.name!r}: of {len(wanted)} tensors "
        f"{len(wrong)} are missing or of another size, e.g. {name}, which {has}{also}; copy the file again, or name "
        "the pipeline that it was made from in base"
    )


def check_folder(path: str, kind: type[PretrainedModel], home: Path, part: str) -> None:
    """Raises ValueError where the weights in a pipeline's folder go by other names than diffusers', which would leave
    its network at random; nothing where there are none yet."""
    names = {name for file in weight_files(home / part) for name in header(file)}
    wanted = shapes_of(kind, home).keys() if names else set()
    missing = sorted(wanted - names)
    if len(missing) * 10 > len(wanted):
        raise ValueError(
            f"the model {path!r} lacks {len(missing)} of {len(wanted)} tensors of its {part}, e.g. {missing[0]}: it "
            "goes by other names than diffusers'; choose a folder in diffusers' layout, or ComfyUI's single file"
        )


def shapes_of(kind: type[PretrainedModel], home: Path) -> dict[str, tuple[int, ...]]:
    """What the network of this pipeline consists of, by diffusers' names; no memory is taken for it."""
    import diffusers

    config = read_object(home / kind.network_part / "config.json")
    with torch.device("meta"):
        network = getattr(diffusers, kind.network_class).from_config(config)
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}


def prefix_before(tensors: Collection[str], wanted: Collection[str], original_mark: str = "") -> str | None:
    """What stands before diffusers' names in a file that goes by them; None for one that does not."""
    if original_mark and any(original_mark in name for name in tensors):
        return None
    shares = {prefix: sum(f"{prefix}{name}" in tensors for name in wanted) for prefix in PREFIXES}
    best = max(PREFIXES, key=lambda prefix: shares[prefix])
    return best if shares[best] > len(wanted) / 2 else None


def without(prefix: str, tensors: Mapping[str, Any]) -> dict[str, Any]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def without_any(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Without the prefix that each name has."""
    longest = {name: max(filter(name.startswith, PREFIXES), key=len) for name in tensors}
    return {name.removeprefix(longest[name]): value for name, value in tensors.items()}


def converted(
    path: str, tensors: Mapping[str, Header], kind: type[PretrainedModel], home: Path
) -> dict[str, torch.Tensor]:
    """The tensors by diffusers' names, as its own converter makes them of original ones; none of them has content."""
    from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES

    empty = {name: torch.empty(tensor.shape, device="meta") for name, tensor in tensors.items()}
    config = read_object(home / kind.network_part / "config.json")
    try:
        with readable_names(kind):
            tools: Any = SINGLE_FILE_LOADABLE_CLASSES[kind.network_class]
            found: dict[str, torch.Tensor] = tools["checkpoint_mapping_fn"](checkpoint=empty, config=config)
    except (IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:  # it takes for granted what is missing
        raise ValueError(
            f"the file {path!r} is no whole {kind.title}: some of its tensors are missing or have foreign names "
            f"({' '.join(str(error).split())[:100]}), e.g. {next(iter(tensors))}; copy the file again"
        ) from error
    return found


@contextmanager
def readable_names(kind: type[PretrainedModel]) -> Iterator[None]:
    """Inside, diffusers reads the original names of this family's network as the family does, where it says how."""
    from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES as CONVERTERS

    before = dict(CONVERTERS)
    if "from_original" in vars(kind):
        CONVERTERS[kind.network_class] = {
            "checkpoint_mapping_fn": lambda checkpoint, **_: kind.from_original(without_any(checkpoint))
        }
    try:
        yield
    finally:
        CONVERTERS.clear()
        CONVERTERS.update(before)


def readable(path: str, kind: type[PretrainedModel], home: Path, dtype: torch.dtype) -> str | dict[str, torch.Tensor]:
    """What diffusers loads a network's file from: its path, or its tensors where a prefix or scales have to go."""
    scaled = is_scaled(header(path))
    prefix = prefix_before(network_header(path), shapes_of(kind, home), kind.original_mark) or ""
    if not (scaled or prefix):
        return path
    return without(prefix, read_meant(path, dtype) if scaled else read_weights(Path(path)))
