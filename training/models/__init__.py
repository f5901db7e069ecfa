"""Networks, behind one small face: what the mathematics above never asks about."""

from .dit import DiT
from .model import Model, NewModel
from .pretrained import PretrainedModel
from .sd import StableDiffusion
from .unet import UNet

FAMILIES: dict[str, type[NewModel]] = {"unet": UNet, "dit": DiT}
"""Families that can be made from a few numbers, by the name that the New Model node shows."""

PRETRAINED: dict[str, type[PretrainedModel]] = {"sd": StableDiffusion}
"""Families that Load Pretrained knows, by their short name."""

__all__ = ["FAMILIES", "PRETRAINED", "DiT", "Model", "NewModel", "PretrainedModel", "StableDiffusion", "UNet"]
