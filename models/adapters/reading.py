"""LoRA files as other tools write them: one reader for all formats, since all say the same in other words.

A key is a layer's name and the name of one of its weights. Both are known in all their spellings.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from .formats import flat
from .layers import DOWN, MAGNITUDE, UP, Adapter, LayerAdapter, delta_shape, peft_scale, split, turn
from .names import Names
from .text_encoders import ATTACHED, kohya_name

ENDINGS = {
    DOWN: (".lora_A.weight", ".lora_A.default.weight", ".lora_down.weight", ".lora.down.weight", "_lora.down.weight",
           ".lora_linear_layer.down.weight", ".lora_A"),
    UP: (".lora_B.weight", ".lora_B.default.weight", ".lora_up.weight", ".lora.up.weight", "_lora.up.weight",
         ".lora_linear_layer.up.weight", ".lora_B"),
    MAGNITUDE: (".lora_magnitude_vector", ".lora_magnitude_vector.weight", ".dora_scale"),
    "alpha": (".alpha",),
    **{name: (f".{name}",) for name in (
        "lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b",
        "hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b",
    )},
}  # fmt: skip
"""What weights are called at the end of a key."""

BEGINNINGS = (
    "base_model.model.", "diffusion_model.", "model.", "unet.", "transformer.",
    "lora_unet_", "lora_transformer_", "lycoris_",
)  # fmt: skip
"""What stands before a layer's name; several may follow each other."""

TEXT_ENCODERS = ("text_encoder", "lora_te", "te1.", "te2.", "cond_stage_model.")


@dataclass(frozen=True)
class Reading:
    """What was found in a file."""

    adapter: dict[str, LayerAdapter]
    unknown: list[str]
    """Keys that belong to no layer of this network."""
    text_encoders: int = 0
    """Keys that belong to text encoders whose layers are not among the names."""
    misfits: tuple[str, ...] = ()
    """Layers that have another size here, or of whose adapter a part is missing."""


def from_file(
    tensors: Mapping[str, Tensor],
    names: Names,
    settings: Mapping[str, Any] | None = None,
    text_settings: Mapping[str, Mapping[str, Any]] | None = None,
) -> Reading:
    """Read an adapter file in whatever format.

    Where it has no alpha, ``settings`` (peft's) say the scale, ``text_settings`` those of text encoders, by part;
    without them it is 1.
    """
    known = known_names(names)
    parts: dict[str, dict[str, Tensor]] = defaultdict(dict)
    unknown, text = [], 0
    for key, value in tensors.items():
        layer, name = split_ending(key)
        found = known.get(plain(layer))
        if (found is None or not name) and key.startswith(TEXT_ENCODERS):
            text += 1
        elif found is None or not name:
            unknown.append(key)
        else:
            parts[found][name] = value
    layers, misfits = {}, []
    for layer, weights in parts.items():
        try:
            own, inner = settings or {}, layer
            if layer.startswith(ATTACHED):
                part, _, inner = layer.removeprefix(ATTACHED).partition(".")
                own = (text_settings or {}).get(part, {})
            layers[layer] = read_layer(inner, weights, size_of(layer, names), own)
        except (KeyError, IndexError, RuntimeError):
            misfits.append(layer)
    return Reading(by_diffusers_layers(layers, names), unknown, text, tuple(misfits))


def split_ending(key: str) -> tuple[str, str]:
    """``(layer, peft's name of the weight)``; the name is empty for a key that we do not know."""
    for name, endings in ENDINGS.items():
        for ending in endings:
            if key.endswith(ending):
                return key.removesuffix(ending), name
    return key, ""


def plain(layer: str) -> str:
    """A layer's name without what formats put around it, with ``_`` for dots."""
    while start := next((start for start in BEGINNINGS if layer.startswith(start)), None):
        layer = layer.removeprefix(start)
    return flat(layer.replace(".processor.", "."))


def known_names(names: Names) -> dict[str, str]:
    """All that a layer may be called, and its one name: the original one where there is one, else diffusers'."""
    known = {}
    for layer in names.layers:
        known[flat(layer)] = layer
        if layer.endswith(".to_out.0"):
            known[flat(layer.removesuffix(".0"))] = layer
        if layer.startswith(ATTACHED):
            bare = layer.removeprefix(ATTACHED)
            spellings = (bare, bare.replace(".text_model.", "."), kohya_name(layer, True), kohya_name(layer, False))
            known |= {flat(spelling): layer for spelling in spellings if flat(spelling) not in known}
    return known | {flat(original): original for original, layers in names.groups.items() if original not in layers}


def size_of(layer: str, names: Names) -> tuple[int, ...]:
    """The shape of a layer's weight, by whichever of its names."""
    if layer in names.layers:
        return names.layers[layer]
    shapes = [names.layers[member] for member in names.groups[layer]]
    return (sum(shape[0] for shape in shapes), *shapes[0][1:])


def read_layer(
    layer: str, weights: Mapping[str, Tensor], size: tuple[int, ...], settings: Mapping[str, Any]
) -> LayerAdapter:
    """Raises KeyError or RuntimeError where the weights are not those of an adapter for a layer of this size."""
    part = LayerAdapter({name: value for name, value in weights.items() if name != "alpha"}, 1.0)
    if delta_shape(part) != (size[0], math.prod(size[1:])):
        raise RuntimeError(f"{layer} has another size")
    has_rank = any(name.endswith(("_a", "_b")) or name == DOWN for name in part.weights)
    if "alpha" not in weights:
        part = replace(part, scale=peft_scale(layer, settings))
    elif has_rank:  # a LoKr of two whole matrices is not scaled
        part = replace(part, scale=weights["alpha"].item() / part.rank)
    return replace(part, weights={**part.weights, **shaped(part, size)})


def shaped(part: LayerAdapter, size: tuple[int, ...]) -> dict[str, Tensor]:
    """A LoRA's weights with as many sides as its layer's: a 1x1 convolution's may be written as a matrix's."""
    is_convolution, kernel = len(size) == 4, size[1:]
    found = {}
    if DOWN in part.weights:
        down, up = part.weights[DOWN], part.weights[UP]
        found = {DOWN: down.reshape(-1, *kernel), UP: up.reshape(*up.shape[:2], *[1] * (len(size) - 2))}
    if part.has_magnitude:
        found[MAGNITUDE] = part.weights[MAGNITUDE].reshape((1, -1, 1, 1) if is_convolution else (-1,))
    return found


def by_diffusers_layers(layers: Adapter, names: Names) -> dict[str, LayerAdapter]:
    """The adapter by diffusers' names, taken apart where the file had several layers in one."""
    found: dict[str, LayerAdapter] = {}
    for layer, part in layers.items():
        members = names.groups.get(layer, (layer,)) if layer not in names.layers else (layer,)
        if len(members) == 1:
            turned = layer not in names.layers and names.turned(members[0])
            found[members[0]] = turn(part) if turned else part
        else:
            pieces = split(part, [names.layers[member][0] for member in members])
            found |= {member: piece for member, piece in zip(members, pieces, strict=True) if piece is not None}
    return found
