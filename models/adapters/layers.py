"""What an adapter adds to each layer, whatever file it came from: the form in which all formats meet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

AdapterKind = Literal["lora", "lokr", "loha"]

DOWN, UP, MAGNITUDE = "lora_A.weight", "lora_B.weight", "lora_magnitude_vector"

RANK_AXES = {DOWN: 0, "lokr_w2_b": 0, "lokr_w1_b": 0, "hada_w1_b": 0}
"""Where the rank is read off: the weight of that name, and which of its sides."""


@dataclass(frozen=True)
class LayerAdapter:
    """One layer's adapter. LoRA: weight + scale * B A (arXiv 2106.09685)."""

    weights: Mapping[str, Tensor]
    """By peft's names. LoRA: ``lora_A.weight`` (rank, in, ...) and ``lora_B.weight`` (out, rank, ...), with DoRA
    ``lora_magnitude_vector`` (out,). LoKr: ``lokr_w1`` ...; LoHa: ``hada_w1_a`` ..."""
    scale: float
    """alpha / rank: what the product of the weights is multiplied by."""
    norm_of_frozen: bool = False
    """DoRA (arXiv 2402.09353) divides by the length of each row of the changed weight, W + scale B A. ComfyUI divides
    by that of the frozen weight, W: the magnitude of a file for ComfyUI is made for that (see dora.py)."""

    @property
    def kind(self) -> AdapterKind:
        if DOWN in self.weights:
            return "lora"
        return "loha" if "hada_w1_a" in self.weights else "lokr"

    @property
    def rank(self) -> int:
        """Its rank; for a LoKr whose two matrices are whole, one that makes peft keep them whole."""
        for name, axis in RANK_AXES.items():
            if name in self.weights:
                return self.weights[name].shape[axis]
        return max(self.weights["lokr_w2"].shape)

    @property
    def alpha(self) -> float:
        return self.scale * self.rank

    @property
    def has_magnitude(self) -> bool:
        return MAGNITUDE in self.weights


Adapter = Mapping[str, LayerAdapter]
"""An adapter: its part for each layer, by diffusers' name of the layer."""


def from_peft(weights: Mapping[str, Tensor], settings: Mapping[str, Any]) -> dict[str, LayerAdapter]:
    """An adapter from peft's ``<layer>.lora_A.weight`` ... and the settings that peft keeps with them."""
    layers: dict[str, dict[str, Tensor]] = {}
    for key, value in weights.items():
        layer, name = split_key(key)
        layers.setdefault(layer, {})[name] = value
    return {layer: LayerAdapter(found, peft_scale(layer, settings)) for layer, found in layers.items()}


def split_key(key: str) -> tuple[str, str]:
    """``(layer, name)`` of a key as peft writes it."""
    for start in (".lora_", ".lokr_", ".hada_"):
        layer, found, name = key.rpartition(start)
        if found:
            return layer, start[1:] + name
    raise ValueError(f"{key!r} is no weight of a LoRA, LoKr or LoHa")


def peft_scale(layer: str, settings: Mapping[str, Any]) -> float:
    """alpha / rank, or alpha / sqrt(rank) with rsLoRA (arXiv 2312.03732); 1 where no settings are known."""
    if not settings:
        return 1.0
    from peft.utils.other import get_pattern_key

    def of(pattern: str, *names: str) -> float:
        patterns: dict[str, float] = settings.get(pattern) or {}
        common: float = next(settings[name] for name in names if name in settings)
        return patterns.get(get_pattern_key(list(patterns), layer), common)

    rank, alpha = of("rank_pattern", "r"), of("alpha_pattern", "lora_alpha", "alpha")
    return alpha / (rank**0.5 if settings.get("use_rslora") else rank)


def to_peft(adapter: Adapter) -> dict[str, Tensor]:
    """The weights by peft's names."""
    return {f"{layer}.{name}": value for layer, part in adapter.items() for name, value in part.weights.items()}


SCALED = (UP, "lokr_w1", "lokr_w1_a", "hada_w1_a")
"""The weight that a change of scale goes into, by kind."""


def rescaled(part: LayerAdapter, scale: float) -> LayerAdapter:
    """The same change of the layer, written with another scale."""
    name = next(name for name in SCALED if name in part.weights)
    weight = part.weights[name] * part.scale / scale
    return replace(part, weights={**part.weights, name: weight}, scale=scale)


def delta_shape(part: LayerAdapter) -> tuple[int, int]:
    """(outputs, inputs times kernel size) of the layer that it was made for. Raises KeyError where a weight is missing,
    RuntimeError where two do not go together."""
    weights = part.weights
    if part.kind == "lora":
        if weights[UP].shape[1] != weights[DOWN].shape[0]:
            raise RuntimeError("A and B have different ranks")
        return weights[UP].shape[0], weights[DOWN][0].numel()
    if part.kind == "loha":
        first, second = ((weights[f"{name}_a"], weights[f"{name}_b"]) for name in ("hada_w1", "hada_w2"))
        if first[0].shape[0] != second[0].shape[0] or first[1].shape != second[1].shape:
            raise RuntimeError("the two products have different sizes")
        return first[0].shape[0], first[1].shape[1]
    small, large = kronecker_shape(part, "lokr_w1"), kronecker_shape(part, "lokr_w2")
    return small[0] * large[0], small[1] * large[1]


def kronecker_shape(part: LayerAdapter, name: str) -> tuple[int, int]:
    """(rows, columns times kernel size) of one of a LoKr's two matrices, whole or as a product."""
    if name in part.weights:
        return part.weights[name].shape[0], part.weights[name][0].numel()
    return part.weights[f"{name}_a"].shape[0], part.weights[f"{name}_b"].shape[1]


FACTORS = {"lora": ((UP, DOWN),), "loha": (("hada_w1_a", "hada_w1_b"), ("hada_w2_a", "hada_w2_b"))}
"""The products of two matrices (out, rank) and (rank, in) that a kind consists of; LoHa multiplies two, number by
number, so that rows of outputs stay apart there too."""


def fuse(parts: Sequence[LayerAdapter | None], sizes: Sequence[int], inputs: int) -> LayerAdapter:
    """One LoRA or LoHa for a layer whose outputs are those of several layers with the same input, one after another.

    Exact: in each product the right matrices of all parts are stacked, the left ones stand on the diagonal. ``sizes``
    are their numbers of outputs; a part that has no adapter is None. Raises ValueError for what cannot be joined.
    """
    there = [part for part in parts if part is not None]
    factors = FACTORS.get(there[0].kind, ())
    if not factors or any(part.kind != there[0].kind for part in there):
        raise ValueError(
            f"a LoKr of {len(parts)} layers cannot be said in this file, where they are one: choose format diffusers, "
            "or train a lora or loha (kind in Add LoRA)"
        )
    if any(part.has_magnitude for part in there) and len(there) < len(parts):
        raise ValueError("DoRA can be joined into one layer only where all its parts have one")
    scale, rank, dtype = there[0].scale, sum(part.rank for part in there), there[0].weights[factors[0][0]].dtype
    weights: dict[str, Tensor] = {}
    for left, right in factors:
        down, up = torch.zeros(rank, inputs, dtype=dtype), torch.zeros(sum(sizes), rank, dtype=dtype)
        row = column = 0
        for part, size in zip(parts, sizes, strict=True):
            if part is not None:
                ratio = part.scale / scale if left in SCALED else 1.0
                down[column : column + part.rank] = part.weights[right]
                up[row : row + size, column : column + part.rank] = part.weights[left] * ratio
                column += part.rank
            row += size
        weights |= {left: up, right: down}
    if there[0].has_magnitude:
        weights[MAGNITUDE] = torch.cat([part.weights[MAGNITUDE] for part in there])
    return LayerAdapter(weights, scale)


def split(joined: LayerAdapter, sizes: Sequence[int]) -> list[LayerAdapter | None]:
    """The inverse of :func:`fuse`: one adapter for each of the layers, without the ranks that do not reach it.

    None for a layer that nothing reaches, unless nothing reaches any: then it is a new adapter, for all of them.
    Raises ValueError for kinds of adapters that cannot be taken apart.
    """
    factors = FACTORS.get(joined.kind, ())
    if not factors:
        raise ValueError("a LoKr of a layer that is several here cannot be taken apart: continue a lora or loha")
    magnitude = joined.weights.get(MAGNITUDE)
    is_new = not joined.weights[factors[0][0]].any()
    parts: list[LayerAdapter | None] = []
    row = 0
    for size in sizes:
        reaches = torch.full((joined.rank,), is_new)
        for left, _ in factors:
            reaches |= joined.weights[left][row : row + size].ne(0).any(0)
        weights: dict[str, Tensor] = {}
        for left, right in factors:
            weights |= {left: joined.weights[left][row : row + size, reaches], right: joined.weights[right][reaches]}
        if magnitude is not None:
            weights[MAGNITUDE] = magnitude[row : row + size]
        parts.append(LayerAdapter(weights, joined.scale) if reaches.any() else None)
        row += size
    return parts


def turn(part: LayerAdapter) -> LayerAdapter:
    """The adapter of a layer whose two halves of outputs change places. Raises ValueError for LoKr."""
    if part.kind not in FACTORS:
        raise ValueError("a LoKr of the last normalisation has no place in this file: choose format diffusers")
    names = [*(left for left, _ in FACTORS[part.kind]), *([MAGNITUDE] if part.has_magnitude else [])]
    turned = {name: torch.cat(part.weights[name].chunk(2)[::-1]) for name in names}
    return replace(part, weights={**part.weights, **turned})
