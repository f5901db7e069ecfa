"""Euler steps that put new noise in: the published ones, and bounded at any level."""

import math

import pytest
import torch
from captioned_batches import FLOW, batch_of, network
from comfyui_rollout.diffusion.noisy_batch import noisy_batch
from comfyui_rollout.diffusion.rollout import roll_out
from comfyui_rollout.diffusion.rollouts.plan import Draw
from comfyui_rollout.diffusion.rollouts.stochastic import Noise
from comfyui_rollout.diffusion.schedules import DDPM, FlowMatching
from comfyui_rollout.diffusion.solvers import solver


@pytest.mark.parametrize("kind", ["cps", "flow_sde"])
def test_no_new_noise_is_eulers_step(mixture, kind):
    """At scale 0 both are the deterministic path."""
    batch, lengths = batch_of(), torch.full((8,), 3)
    draw = Draw(lengths, (batch.timestep + 90).clamp(max=1000), torch.full((8,), 30.0).double())
    still = Noise(kind, 0.0).solver(torch.Generator())
    expected = roll_out(mixture(FLOW), batch, draw, solver("euler"))
    torch.testing.assert_close(roll_out(mixture(FLOW), batch, draw, still).x, expected.x, rtol=0, atol=1e-9)


def step_of(kind, scale, velocity, x, now, then, seed=0):
    """Each published step, written out for one level."""
    xi = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed), dtype=x.dtype)
    if kind == "cps":
        s = then * math.sin(scale * math.pi / 2)
        return (1 - then) * (x - now * velocity) + math.sqrt(then**2 - s**2) * (x + (1 - now) * velocity) + s * xi
    s, dt = math.sqrt(now / (1 - now)) * scale, then - now
    mean = x * (1 + s**2 / (2 * now) * dt) + velocity * (1 + s**2 * (1 - now) / (2 * now)) * dt
    return mean + s * math.sqrt(-dt) * xi


@pytest.mark.parametrize("kind", ["cps", "flow_sde"])
def test_steps_with_new_noise_are_the_published_ones(kind):
    """Against the formulas, number by number, for one step from 0.6 to 0.5."""
    generator = torch.Generator().manual_seed(1)
    latents, noise = torch.randn(2, 3, 1, 2, 2, generator=generator, dtype=torch.float64)
    batch = noisy_batch(latents, noise, torch.full((3,), 500.0).double(), FLOW, {})
    draw = Draw(torch.ones(3).long(), torch.full((3,), 600.0).double(), torch.full((3,), 100.0).double())
    noisy = Noise(kind, 0.5).solver(torch.Generator().manual_seed(0))
    rolled = roll_out(lambda x, timestep, told: torch.sin(x), batch, draw, noisy)
    x = FLOW.add_noise(latents, noise, draw.source)
    torch.testing.assert_close(rolled.x, step_of(kind, 0.5, torch.sin(x), x, 0.6, 0.5), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["cps", "flow_sde"])
def test_new_noise_keeps_the_spread(mixture, kind):
    """From pure noise, many stochastic steps with a perfect network end with the data's own spread, and stay finite."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(4000, 1, 1, 1, generator=generator)
    batch = noisy_batch(torch.zeros_like(noise), noise, torch.full((4000,), 5.0).double(), FlowMatching(), {})
    draw = Draw(torch.full((4000,), 60), torch.full((4000,), 1000.0).double(), torch.full((4000,), 995 / 60).double())
    rolled = roll_out(mixture(FlowMatching()), batch, draw, Noise(kind, 0.5).solver(generator))
    assert rolled.x.std() == pytest.approx(1.04, abs=0.12)


@pytest.mark.parametrize("kind", ["cps", "flow_sde"])
def test_new_noise_is_bounded_at_any_level(kind):
    """Training levels come as near to pure noise as they like; no grid of a sampler has such ones."""
    timestep = torch.tensor([999.99, 999.0, 990.0, 900.0, 750.0, 500.0]).double()
    latents, noise = torch.randn(2, 6, 1, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    batch = noisy_batch(latents, noise, timestep - 250, FlowMatching(), {})
    draw = Draw(torch.ones(6).long(), timestep, torch.full((6,), 250.0).double())
    perfect = Noise(kind, 1.0).solver(torch.Generator().manual_seed(1))
    rolled = roll_out(lambda x, timestep, told: noise - latents, batch, draw, perfect)
    assert rolled.x.flatten(1).std(1).max() < 2


def test_new_noise_is_for_flow_matching():
    """A DDPM schedule has other steps for it."""
    batch = batch_of(DDPM())
    draw = Draw(torch.ones(8).long(), batch.timestep + 1, torch.ones(8).double())
    with pytest.raises(ValueError, match="cps is for flow matching"):
        roll_out(network, batch, draw, Noise("cps").solver(torch.Generator()))
