"""Where a pretrained model is, and what is known of it before its weights are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from ...diffusion.schedules import Schedule
from ..attention import DEFAULT
from ..families import PRETRAINED, PretrainedModel
from ..quantization import Quantization
from .single_file import default_base

Storage = Literal["fp32", "bf16", "fp16"]
DTYPES: Mapping[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


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
    swap: int = 0
    """Blocks of the network that wait in main memory until they are called; 0 = all stay on the device."""
    attention: str = DEFAULT
    """What computes the network's attention, one of :data:`models.attention.KERNELS`; ``default`` = as torch does."""
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
    few_steps: bool = False
    """Whether it was distilled to few sampling steps."""

    @property
    def kind(self) -> type[PretrainedModel]:
        return PRETRAINED[self.family]
