"""Text encoders that are trained along with a network.

They become a part of it, ``text_encoders.<part>.<layer>``: device, modes, trained weights, their average and their
state follow by name. In files a layer is ``<part>.<layer>``, beside the network's ``unet.<layer>``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from ..families import PretrainedModel
from ..loading.index import read_index
from ..loading.load import load_parts, local_folder
from ..loading.pretrained import Pretrained

ATTACHED = "text_encoders."
"""What the names of their layers start with in the network."""

TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj")
"""The layers of CLIP that get an adapter."""


def attach_text_encoders(model: PretrainedModel, pretrained: Pretrained) -> None:
    """Load the family's text encoders into the network, unless they are there: captions are read anew in each step."""
    if model.text_encoders:
        return
    parts = model.trainable_text_parts
    pipeline = load_parts(pretrained.source, pretrained.info, parts)
    join(model, {part: getattr(pipeline, part).to(model.device) for part in parts})


def join(model: PretrainedModel, encoders: Mapping[str, nn.Module]) -> None:
    """Make text encoders, by their parts' names in the pipeline's order, a part of the network."""
    model.text_encoders = tuple(encoders.values())
    model.network.text_encoders = nn.ModuleDict({part: as_in_files(each) for part, each in encoders.items()})


def as_in_files(encoder: nn.Module) -> nn.Module:
    """Layers of CLIP are called ``text_model.`` in all files; transformers 5 has dropped that from some of them."""
    return encoder if hasattr(encoder, "text_model") else nn.ModuleDict({"text_model": encoder})


def empty_text_encoders(pretrained: Pretrained) -> dict[str, nn.Module]:
    """The trainable text encoders by their parts, of tensors without numbers, from their small files alone."""
    import torch
    import transformers

    home, encoders = local_folder(pretrained.source.home), {}
    for part in pretrained.info.kind.trainable_text_parts:
        kind: Any = getattr(transformers, read_index(home)[part][1])
        with torch.device("meta"):
            config = kind.config_class.from_pretrained(home / part)
            if pretrained.info.family == "sd":
                config.num_hidden_layers -= max(0, pretrained.source.clip_skip - 1)
            encoders[part] = kind(config)
    return encoders


def text_layers(pretrained: Pretrained) -> dict[str, tuple[int, ...]]:
    """Shapes of the weights of the trainable text encoders' layers, from their small files alone."""
    return {
        f"{ATTACHED}{part}.{name}": tuple(layer.weight.shape)
        for part, encoder in empty_text_encoders(pretrained).items()
        for name, layer in as_in_files(encoder).named_modules()
        if isinstance(layer, nn.Linear)
    }


def name_in_file(name: str, network_part: str) -> str:
    """A layer's or weight's name in a file of diffusers."""
    return name.removeprefix(ATTACHED) if name.startswith(ATTACHED) else f"{network_part}.{name}"


def name_in_network(name: str) -> str:
    """The inverse of :func:`name_in_file`."""
    return ATTACHED + name if name.startswith("text_encoder") else name.partition(".")[2]


def kohya_name(layer: str, is_sdxl: bool) -> str:
    """What sd-scripts calls an attached layer, and ComfyUI too: ``lora_te_text_model_encoder_layers_0_...``."""
    part, _, inner = layer.removeprefix(ATTACHED).partition(".")
    number = ("2" if part.endswith("_2") else "1") if is_sdxl else ""
    return f"lora_te{number}_{inner.replace('.', '_')}"
