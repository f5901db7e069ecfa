"""Models whose answers are known exactly, and the schedules and batches to try them on."""

import pytest
import torch
from comfyui_rollout.diffusion.predictions import mix, per_sample
from comfyui_rollout.diffusion.schedules import DDPM, FlowMatching

SCHEDULES = {
    "flow": FlowMatching(),
    "linear epsilon": DDPM("linear", "epsilon", beta_start=1e-4, beta_end=0.02),
    "linear sample": DDPM("linear", "sample", beta_start=1e-4, beta_end=0.02),
    "scaled_linear epsilon": DDPM("scaled_linear", "epsilon"),
    "scaled_linear v": DDPM("scaled_linear", "v_prediction"),
    "scaled_linear sample": DDPM("scaled_linear", "sample"),
    "cosine epsilon": DDPM("squaredcos_cap_v2", "epsilon"),
    "cosine v": DDPM("squaredcos_cap_v2", "v_prediction"),
    "cosine sample": DDPM("squaredcos_cap_v2", "sample"),
    "zero-terminal-SNR v": DDPM("scaled_linear", "v_prediction", zero_terminal_snr=True),
    "zero-terminal-SNR sample": DDPM("scaled_linear", "sample", zero_terminal_snr=True),
}


@pytest.fixture(params=SCHEDULES.values(), ids=SCHEDULES.keys())
def schedule(request):
    """Each schedule with each prediction type that it allows."""
    return request.param


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def mixture():
    """``mixture(schedule)``: the perfect network for data from three Gaussians, exact at every level."""
    means = torch.tensor([-1.0, 0.4, 1.5], dtype=torch.float64)
    stds = torch.tensor([0.3, 0.5, 0.4], dtype=torch.float64)
    prior = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)

    def build(schedule):
        def network(x, timestep, conditioning):
            # Each element of x is a mixture of its own; components are in the last dimension.
            levels = schedule.coefficients(timestep.double())
            alpha, sigma = (per_sample(level, x.double())[..., None] for level in levels)
            variance = (alpha * stds) ** 2 + sigma**2
            away = x.double()[..., None] - alpha * means
            odds = prior.log() - variance.log() / 2 - away**2 / (2 * variance)
            # By hand: torch.softmax wakes a thread pool, which on a busy machine is most of a small oracle's time.
            chance = (odds - odds.amax(-1, keepdim=True)).exp()
            chance = chance / chance.sum(-1, keepdim=True)
            latents = (chance * (means + alpha * stds**2 / variance * away)).sum(-1)
            noise = (chance * sigma / variance * away).sum(-1)
            a, b = (per_sample(weight, latents) for weight in mix(schedule.prediction, *levels))
            return (a * latents + b * noise).to(x.dtype)

        return network

    return build


@pytest.fixture
def point_mass():
    """``point_mass(schedule)``: the perfect network when an item's clean latents are known from its conditioning."""

    def build(schedule):
        def network(x, timestep, conditioning):
            levels = schedule.coefficients(timestep.double())
            alpha, sigma = (per_sample(level, x.double()) for level in levels)
            latents = conditioning["latents"].double()
            noise = torch.where(sigma == 0, conditioning["noise"].double(), (x.double() - alpha * latents) / sigma)
            a, b = (per_sample(weight, latents) for weight in mix(schedule.prediction, *levels))
            return (a * latents + b * noise).to(x.dtype)

        return network

    return build
