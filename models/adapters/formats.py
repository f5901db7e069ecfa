"""LoRA files as other tools read them; reading.py is the way back.

===========  ==========================================================================  =====================
format       a layer is called                                                           its weights
===========  ==========================================================================  =====================
diffusers    ``unet.`` or ``transformer.`` and diffusers' name                           ``lora_A``, ``lora_B``
comfyui      ``diffusion_model.`` and the original name; ``transformer.`` and            the same, ``alpha``
             diffusers' name for FLUX, SD3 and others that ComfyUI knows by both
kohya        ``lora_unet_`` and the name with ``_`` for dots: diffusers' name for        ``lora_down``,
             SD 1.x and 2.x, the original one for all others                             ``lora_up``, ``alpha``
===========  ==========================================================================  =====================

LoKr and LoHa weights have the same names everywhere, DoRA's are ``dora_scale`` outside of diffusers. Where original
layers are joined of several, these go by diffusers' names and SimpleTuner's prefix ``lycoris_``, which ComfyUI knows.

Text encoders: ``text_encoder.`` for diffusers, ``lora_te_`` (SDXL: ``lora_te1_``, ``lora_te2_``) for the others, which
ComfyUI and sd-scripts both know.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor

from .layers import DOWN, MAGNITUDE, UP, Adapter, LayerAdapter, fuse, rescaled, to_peft, turn
from .names import Names
from .text_encoders import ATTACHED, kohya_name, name_in_file

Format = Literal["diffusers", "comfyui", "kohya"]

NAMED_BY_DIFFUSERS = ("FluxTransformer2DModel", "SD3Transformer2DModel", "ZImageTransformer2DModel")
"""Transformers that ComfyUI knows by diffusers' names too, which keep q, k and v apart: no rank is added."""

JOINED = ("Flux2Transformer2DModel", "ChromaTransformer2DModel", "LongCatImageTransformer2DModel")
"""Transformers of which ComfyUI knows by diffusers' names too what the original has joined or turned: a LoKr cannot be,
a LoHa need not."""

ONE_NAME = ("QwenImageTransformer2DModel", "ErnieImageTransformer2DModel", "HiDreamImageTransformer2DModel")
"""Transformers whose layers have diffusers' names everywhere."""

UNPROVEN = ("Flux3Transformer2DModel",)
"""Transformers whose original names are known, and no tool that was asked whether it reads LoRAs by them."""


def to_file(adapter: Adapter, format: Format, names: Names, part: str) -> dict[str, Tensor]:
    """The tensors of a file in that format; ``part`` is the network's name in its pipeline (diffusers only).

    Raises ValueError where the format has no way to say what the adapter does.
    """
    if format == "diffusers":  # its alpha is in the metadata, which not every tool reads: the scale is in the weights
        return {name_in_file(key, part): value for key, value in to_peft(with_unit_scales(adapter)).items()}
    tensors: dict[str, Tensor] = {}
    for layer, found in named(adapter, format, names).items():
        found = with_whole_scale(found)
        for name, value in found.weights.items():
            tensors[f"{layer}.{written(name, format)}"] = column(value) if name == MAGNITUDE else value
        tensors[f"{layer}.alpha"] = torch.tensor(found.alpha)
    return tensors


def named(adapter: Adapter, format: Format, names: Names) -> dict[str, LayerAdapter]:
    """The adapter with the layers' names as they are in the file, joined where the file joins them."""
    own = {kohya_name(layer, names.is_sdxl): part for layer, part in adapter.items() if layer.startswith(ATTACHED)}
    adapter = {layer: part for layer, part in adapter.items() if not layer.startswith(ATTACHED)}
    prefix = by_diffusers_names(adapter, format, names)
    if prefix is None:
        apart = unjoinable(adapter, names)
        own |= {f"lycoris_{flat(layer)}": part for layer, part in apart.items()}
        adapter = {layer: part for layer, part in adapter.items() if layer not in apart}
        prefix = "diffusion_model." if format == "comfyui" else "lora_unet_"
        adapter = original_layers(adapter, names)
    return {prefix + (layer if format == "comfyui" else flat(layer)): part for layer, part in adapter.items()} | own


def by_diffusers_names(adapter: Adapter, format: Format, names: Names) -> str | None:
    """The prefix, if layers go by diffusers' names in this file; None if by the original ones."""
    if names.is_unet:
        return "lora_unet_" if format == "kohya" and not names.is_sdxl else None
    if names.network_class in UNPROVEN or not (names.groups or names.network_class in ONE_NAME):
        raise ValueError(f"format: no tool is known to read a LoRA of {names.network_class} in it; choose diffusers")
    if not names.groups or (format == "comfyui" and names.network_class in NAMED_BY_DIFFUSERS):
        return "transformer." if format == "comfyui" else "lora_unet_"
    relatives = any(part.kind != "lora" or part.has_magnitude for part in adapter.values())
    return "lycoris_" if relatives and names.network_class in NAMED_BY_DIFFUSERS else None


def unjoinable(adapter: Adapter, names: Names) -> dict[str, LayerAdapter]:
    """LoKr and LoHa of layers that the original has joined or turned, where these have names of their own too."""
    if names.network_class not in JOINED:
        return {}
    joined = {layer for layers in names.groups.values() if len(layers) > 1 or names.turned(*layers) for layer in layers}
    return {layer: part for layer, part in adapter.items() if part.kind != "lora" and layer in joined}


def for_diffusers_alone(layers: Iterable[str], kind: str, names: Names) -> bool:
    """Whether other tools have some of these layers as one, and no way to say what this kind does to each of them."""
    together = {layer for members in names.groups.values() if len(members) > 1 for layer in members}
    split_names = names.network_class in (*NAMED_BY_DIFFUSERS, *JOINED)
    return kind == "lokr" and not split_names and bool(together & {*layers})


def original_layers(adapter: Adapter, names: Names) -> dict[str, LayerAdapter]:
    """The adapter by the original names of the layers."""
    left, found = dict(adapter), {}
    for original, layers in names.groups.items():
        parts = [left.pop(layer, None) for layer in layers]
        if len(parts) == 1 and parts[0] is not None:
            found[original] = turn(parts[0]) if names.turned(layers[0]) else parts[0]
        elif any(parts):
            sizes, inputs = [names.layers[layer][0] for layer in layers], names.layers[layers[0]][1]
            found[original] = fuse(parts, sizes, inputs)
    if left:
        raise ValueError(f"{next(iter(left))} and {len(left) - 1} more layers have no name there: choose diffusers")
    return found


def flat(name: str) -> str:
    return name.replace(".", "_")


def written(name: str, format: Format) -> str:
    """A weight's name in these files."""
    kohya = {DOWN: "lora_down.weight", UP: "lora_up.weight"}
    return "dora_scale" if name == MAGNITUDE else kohya.get(name, name) if format == "kohya" else name


def column(magnitude: Tensor) -> Tensor:
    """DoRA's magnitudes as LyCORIS has them: (out, 1) or (out, 1, 1, 1)."""
    return magnitude.reshape(-1, 1) if magnitude.ndim < 4 else magnitude.reshape(-1, 1, 1, 1)


def with_unit_scales(adapter: Adapter) -> dict[str, LayerAdapter]:
    """The adapter with alpha = rank everywhere."""
    return {layer: rescaled(part, 1.0) for layer, part in adapter.items()}


def with_whole_scale(part: LayerAdapter) -> LayerAdapter:
    """A LoKr of two whole matrices has no rank, and tools do not scale it: its scale goes into the first one."""
    if part.kind != "lokr" or "lokr_w2" not in part.weights or "lokr_w1" not in part.weights:
        return part
    return rescaled(part, 1.0)
