"""Batches whose items have a caption, and a network that is far from straight."""

import torch
from comfyui_rollout.diffusion.noisy_batch import noisy_batch
from comfyui_rollout.diffusion.schedules import FlowMatching

FLOW = FlowMatching(density="logit_normal")


def network(x, timestep, conditioning):
    """Something that is far from straight, and depends on its caption."""
    return torch.sin(3 * x) + 0.001 * timestep[:, None, None, None] * x + conditioning["caption"][:, :, None, None]


def batch_of(schedule=FLOW, count=8, dtype=torch.float64, **more):
    generator = torch.Generator().manual_seed(3)
    latents, noise = torch.randn(2, count, 1, 4, 4, generator=generator, dtype=dtype)
    told = {"caption": torch.randn(count, 1, generator=generator, dtype=dtype)}
    return noisy_batch(latents, noise, schedule.sample_timesteps(count, generator), schedule, told, **more)
