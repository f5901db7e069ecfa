"""Batches for chains and pairs, told their own latents and noise or texts."""

from dataclasses import replace

import torch
from comfyui_rollout.diffusion.rollout import RolloutPlan, noisy_batch

PLAN = RolloutPlan(max_step_offset=4, probability=1.0, step_size=70.0, rollout="persistent")


def batch_of(schedule, count=6, dtype=torch.float64, seed=0, **more):
    generator = torch.Generator().manual_seed(seed)
    latents, noise = torch.randn(2, count, 1, 2, 2, generator=generator, dtype=dtype)
    timestep = schedule.sample_timesteps(count, generator)
    told = {"latents": latents, "noise": noise}
    return noisy_batch(latents, noise, timestep, schedule, told, **more)


def with_texts(batch, length):
    """The batch, told texts (3, length, 2) of ones, and their mask."""
    told = {"text": torch.ones(3, length, 2), "mask": torch.ones(3, length, dtype=torch.bool)}
    return replace(batch, conditioning=told)
