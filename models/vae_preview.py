"""Previews decoded by a VAE, where the linear map to colours is not enough: slower, and what a sample would show."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from .loading.load import load_parts, number_format
from .loading.pretrained import Pretrained
from .quiet import quiet

OWN = "vae"
"""What asks for the model's own VAE, in place of the name of a tiny one."""


@dataclass(frozen=True)
class VaePreviews:
    """How a data set wants its latents shown. Nothing is loaded."""

    pretrained: Pretrained
    vae: str
    """``vae``, or folder or hub id of a tiny one (AutoencoderTiny, such as madebyollin/taesd)."""
    linear: Tensor | None
    """The linear map, for differences, which are no latents that a VAE knows."""

    def begin(self, device: torch.device) -> VaeColours:
        """The decoder of one run."""
        return VaeColours(self, device)


class VaeColours:
    """Latents (B, C, H, W) -> colours (B, 3, H * f, W * f) in 0..1 on the CPU; loaded when the first are shown."""

    def __init__(self, wanted: VaePreviews, device: torch.device) -> None:
        self.wanted, self.device, self.linear = wanted, device, wanted.linear

    @torch.no_grad()
    def __call__(self, latents: Tensor) -> Tensor:
        self.vae.to(self.device)
        # One by one: a preview must not need more memory than a training step.
        images = [self._decode(item[None].to(self.device)) for item in latents.detach()]
        self.vae.to("cpu")  # where it waits for the next preview
        return (torch.cat(images) / 2 + 0.5).clamp(0, 1)

    def _decode(self, latents: Tensor) -> Tensor:
        with torch.autocast(self.device.type, enabled=False):  # a VAE in half precision may overflow
            return self.wanted.pretrained.info.kind.decode_latents(self.vae, latents).cpu()

    @cached_property
    def vae(self) -> Any:
        """The VAE; raises ValueError where there is none of that name."""
        source, info = self.wanted.pretrained.source, self.wanted.pretrained.info
        if self.wanted.vae == OWN:
            pipeline: Any = load_parts(source, info, ["vae"])
            return pipeline.vae
        return load_tiny(self.wanted.vae)


def load_tiny(name: str) -> Any:
    """A tiny VAE from a folder or the hub; raises ValueError, naming the input, if there is none."""
    import diffusers

    try:
        with quiet():
            return diffusers.AutoencoderTiny.from_pretrained(name, use_safetensors=True, **number_format(torch.float32))
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"previews: {name!r} is no tiny VAE in diffusers' format ({reason}); write vae, or leave it empty"
        ) from error
