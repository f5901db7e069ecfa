"""DoRA as ComfyUI computes it.

DoRA (arXiv 2402.09353, equation 5) is m (W + d) / |W + d|, where d = scale B A and |.| is the length of each row.
ComfyUI computes m (W + d) / |W|. A file for ComfyUI therefore has the magnitude m |W| / |W + d|, with which both are
the same at strength 1; it is turned back before it is trained further.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..loading.load import load_network
from ..loading.pretrained import Pretrained
from .formats import NAMED_BY_DIFFUSERS
from .layers import DOWN, MAGNITUDE, UP, Adapter, LayerAdapter
from .original import Layers, turned
from .text_encoders import ATTACHED, attach_text_encoders

Turned = Callable[[str], bool]
"""Whether a layer's outputs have their halves the other way round in ComfyUI, which turns the change, but not m."""


def turned_by_comfyui(network_class: str, layers: Layers) -> Turned:
    """For a network's layers; a file by the original names is turned as a whole when it is written."""
    return lambda layer: network_class in NAMED_BY_DIFFUSERS and turned(network_class, layer, layers)


def for_comfyui(adapter: Adapter, weights: Mapping[str, Tensor], is_turned: Turned) -> dict[str, LayerAdapter]:
    """The adapter with magnitudes for ComfyUI; ``weights`` are the frozen ones of its layers."""
    return {layer: with_norm(True, part, weights.get(layer), is_turned(layer)) for layer, part in adapter.items()}


def for_peft(adapter: Adapter, weights: Mapping[str, Tensor], is_turned: Turned) -> dict[str, LayerAdapter]:
    """The inverse of :func:`for_comfyui`."""
    return {layer: with_norm(False, part, weights.get(layer), is_turned(layer)) for layer, part in adapter.items()}


def with_norm(of_frozen: bool, part: LayerAdapter, weight: Tensor | None, turned: bool) -> LayerAdapter:
    if not part.has_magnitude or part.norm_of_frozen == of_frozen:
        return part
    assert weight is not None
    magnitude, rows = part.weights[MAGNITUDE], weight.float().flatten(1)
    change = part.weights[UP].float().flatten(1) @ part.weights[DOWN].float().flatten(1)
    ratio = rows.norm(dim=1) / (rows + part.scale * change.to(rows.device)).norm(dim=1)
    ratio = ratio.reshape(magnitude.shape).to(magnitude.device)
    magnitude = halves_turned(magnitude * ratio, turned) if of_frozen else halves_turned(magnitude, turned) / ratio
    return replace(part, weights={**part.weights, MAGNITUDE: magnitude}, norm_of_frozen=of_frozen)


def halves_turned(magnitude: Tensor, turned: bool) -> Tensor:
    return torch.cat(magnitude.chunk(2)[::-1]) if turned else magnitude


def weights_of(network: nn.Module, layers: Iterable[str]) -> dict[str, Tensor]:
    """The frozen weights of these layers of a live network, whole again where they are squeezed."""
    from peft.utils.integrations import dequantize_module_weight

    found = {}
    for layer in layers:
        module = network.get_submodule(layer)
        found[layer] = dequantize_module_weight(getattr(module, "base_layer", module)).detach()
    return found


def frozen_weights(pretrained: Pretrained, layers: Iterable[str]) -> dict[str, Tensor]:
    """The weights of these layers as ComfyUI has them, which squeezes nothing: the network is loaded for them."""
    whole = replace(pretrained.source, quantization="none", gradient_checkpointing=False)
    model, layers = load_network(whole, pretrained.info, "cpu"), list(layers)
    if any(layer.startswith(ATTACHED) for layer in layers):
        attach_text_encoders(model, pretrained)
    return weights_of(model.network, layers)
