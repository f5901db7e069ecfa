"""The old place of models/families, kept for programs of version 0.1."""

from ..models.families import FAMILIES, PRETRAINED, DiT, UNet

__all__ = ["FAMILIES", "PRETRAINED", "DiT", "UNet"]
