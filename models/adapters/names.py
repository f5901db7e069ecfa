"""The names of one network's layers, diffusers' and the original ones, from its settings alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ...files.whole import read_object
from ..loading.load import local_folder
from ..loading.pretrained import Pretrained
from .original import ORIGINAL, Groups, Layers, turned, unet_name, with_numbers
from .text_encoders import text_layers


@dataclass(frozen=True)
class Names:
    """The names of one network's layers."""

    network_class: str
    layers: Layers
    groups: Groups
    """Original names of all layers that have one."""
    is_sdxl: bool = False

    def turned(self, layer: str) -> bool:
        return turned(self.network_class, layer, self.layers)

    @property
    def is_unet(self) -> bool:
        return self.network_class == "UNet2DConditionModel"


def names_of(network_class: str, config: Mapping[str, Any]) -> Names:
    """The names for a network with this configuration; no memory is taken for its weights."""
    layers = layers_of(network_class, config)
    if network_class in ORIGINAL:
        return Names(network_class, layers, with_numbers(ORIGINAL[network_class], layers))
    if network_class == "UNet2DConditionModel":
        resnets = config["layers_per_block"]
        named = {layer: unet_name(layer, resnets, layers) for layer in layers}
        groups = {original: (layer,) for layer, original in named.items() if original}
        return Names(network_class, layers, groups, is_sdxl=config.get("addition_embed_type") == "text_time")
    return Names(network_class, layers, {})


def names_in(pretrained: Pretrained, text_encoders: bool = False) -> Names:
    """The names for a pretrained model, from its small files; with those of text encoders that can be trained."""
    kind = pretrained.info.kind
    names = names_of(kind.network_class, network_config(pretrained))
    return replace(names, layers={**names.layers, **text_layers(pretrained)}) if text_encoders else names


def network_config(pretrained: Pretrained) -> dict[str, Any]:
    """The settings of a pretrained model's network."""
    home = local_folder(pretrained.source.home)
    return read_object(home / pretrained.info.kind.network_part / "config.json")


def layers_of(network_class: str, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Shapes of the weights of all linear and convolution layers, from the configuration alone."""
    import diffusers
    import torch
    from torch import nn

    with torch.device("meta"):
        network = getattr(diffusers, network_class).from_config(dict(config))
    found = network.named_modules()
    return {name: tuple(layer.weight.shape) for name, layer in found if isinstance(layer, nn.Linear | nn.Conv2d)}
