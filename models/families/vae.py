"""What a family's VAE is asked beside its numbers: how far it shrinks images, and what its latents are spread like."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

MOST_PIXELS = 1_500_000
"""Of an image that a VAE takes whole; larger ones in tiles. Families are made for 1 megapixel, well below."""

Moments = tuple[Tensor | float, Tensor | float]
"""What is taken off latents (B, C, H, W) as a VAE makes them, and what they are multiplied by then."""


def keep_from_overflowing(vae: Any) -> None:
    """Move a VAE whose values do not fit in fp16 to float32, as diffusers' pipelines do."""
    if vae.dtype == torch.float16 and vae.config.get("force_upcast"):
        vae.to(torch.float32)


def tile_if_large(vae: Any, pixels: int) -> None:
    """Have the VAE work in overlapping tiles on an image of more than MOST_PIXELS, which would not fit otherwise."""
    if hasattr(vae, "use_tiling"):  # those of diffusers that can
        (vae.enable_tiling if pixels > MOST_PIXELS else vae.disable_tiling)()


def downscaling(vae_config: Mapping[str, Any]) -> int:
    """How many pixels a latent is high and wide: every level of a VAE but the last halves the image.

    Raises ValueError where its settings do not say. Those that halve the image in patches too say so apart.
    """
    if "temperal_downsample" in vae_config:  # Qwen-Image's and Wan's, for videos: an entry a level
        return 2 ** len(vae_config["temperal_downsample"]) * int(vae_config.get("patch_size") or 1)
    if "spatial_compression_ratio" in vae_config:
        return int(vae_config["spatial_compression_ratio"])
    levels = vae_config.get("block_out_channels") or vae_config.get("encoder_block_out_channels")
    if not isinstance(levels, (list, tuple)):
        raise ValueError(f"the VAE {vae_config.get('_class_name')} is none whose latents' size we know")
    return 2 ** (len(levels) - 1)


def moments_of_all(vae: Any) -> Moments:
    """One mean and one scale, as the VAE's settings have them."""
    return vae.config.get("shift_factor") or 0.0, vae.config.scaling_factor


def moments_of_channels(vae: Any, latents: Tensor) -> Moments:
    """Those of each channel, as the VAE's settings have them."""
    mean, deviation = (torch.tensor(vae.config[name]) for name in ("latents_mean", "latents_std"))
    return mean.to(latents).view(1, -1, 1, 1), 1 / deviation.to(latents).view(1, -1, 1, 1)


def moments_of_patches(
    vae: Any, latents: Tensor, out_of_patches: Callable[[Tensor], Tensor], epsilon: float | None = None
) -> Moments:
    """Those of each channel at each place of a patch of 2 x 2, as FLUX.2's VAE has measured them.

    ``out_of_patches`` lays a patch's (1, 4 C, 1, 1) as (1, C, 2, 2); ``epsilon`` in place of the VAE's own.
    """
    mean, variance = (value.to(latents).view(1, -1, 1, 1) for value in (vae.bn.running_mean, vae.bn.running_var))
    scale = 1 / (variance + (epsilon or vae.config.batch_norm_eps)).sqrt()
    high, wide = (side // 2 for side in latents.shape[-2:])
    return out_of_patches(mean).tile(high, wide), out_of_patches(scale).tile(high, wide)
