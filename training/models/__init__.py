"""Networks, behind one small face: what the mathematics above never asks about."""

from .dit import DiT
from .model import Model
from .unet import UNet

FAMILIES: dict[str, type[Model]] = {"unet": UNet, "dit": DiT}
"""Families that can be made from a few numbers, by the name that the New Model node shows."""

__all__ = ["FAMILIES", "DiT", "Model", "UNet"]
