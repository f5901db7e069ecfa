"""What the choice of attention costs or saves: a step (forward and backward) of a network like FLUX, by each kernel.

Against torch's own choice, ``default``, in one process: each round takes all kernels one after the other, and the
median of the rounds' ratios counts. On a CPU, torch's flash kernel is what it chooses anyway; flash-attn needs a CUDA
card.
"""

from __future__ import annotations

import argparse
import sys
import time
from statistics import median

import torch
from comfyui_rollout.models.attention import KERNELS, attend_by, installed
from comfyui_rollout.models.families import PRETRAINED
from diffusers import FluxTransformer2DModel
from report import conclude, table


def network() -> FluxTransformer2DModel:
    torch.manual_seed(0)
    return FluxTransformer2DModel(
        patch_size=1, in_channels=64, num_layers=1, num_single_layers=2, attention_head_dim=64, num_attention_heads=4,
        joint_attention_dim=64, pooled_projection_dim=64, guidance_embeds=True, axes_dims_rope=(8, 28, 28),
    )  # fmt: skip


def step(model: object, side: int, device: torch.device) -> tuple[float, torch.Tensor]:
    """Seconds of a step on latents of this side, and its output."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(1, 16, side, side, generator=generator).to(device)
    told = {"text": torch.randn(1, 128, 64, generator=generator), "pooled": torch.randn(1, 64, generator=generator)}
    begun = time.perf_counter()
    output = model(x, torch.tensor([500.0], device=device), {name: value.to(device) for name, value in told.items()})
    output.square().mean().backward()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begun, output.detach().float().cpu()


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--side", type=int, default=64, help="of the latents: 64 is an image of 512 pixels")
    options.add_argument("--rounds", type=int, default=5)
    chosen = options.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    names = [name for name in installed() if device.type == "cuda" or name == "default" or not KERNELS[name].library]
    models = {}
    for name in names:
        bare = network().to(device, torch.bfloat16 if device.type == "cuda" else torch.float32)
        attend_by(bare, name, device)
        models[name] = PRETRAINED["flux"](bare)
    for model in models.values():
        step(model, chosen.side, device)
    rounds = [{name: step(model, chosen.side, device) for name, model in models.items()} for _ in range(chosen.rounds)]
    ratio = {name: median(each[name][0] / each["default"][0] for each in rounds) for name in names}
    off = {name: (rounds[0][name][1] - rounds[0]["default"][1]).abs().max().item() for name in names}
    rows = [(name, 1000 * median(each[name][0] for each in rounds), ratio[name], off[name]) for name in names]
    table(("attention", "ms a step", "over default", "largest difference"), rows)
    figures = {f"{name} over default": ratio[name] for name in names[1:]} | {"sdpa differs by": off["sdpa"]}
    return conclude(figures, {"sdpa differs by": 0.0}, {})


if __name__ == "__main__":
    sys.exit(main())
