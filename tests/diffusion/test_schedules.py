"""Schedules: diffusers' tables, the densities' moments, inverses and ends."""

import math

import pytest
import torch
from comfyui_rollout.diffusion.schedules import DDPM, FlowMatching
from diffusers import DDPMScheduler

LEVELS = torch.tensor([0.0, 0.25, 3.0, 77.7, 500.0, 998.0, 998.5, 999.0], dtype=torch.float64)


@pytest.mark.parametrize("zero_terminal_snr", [False, True])
@pytest.mark.parametrize("beta_schedule", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_ddpm_is_diffusers_table(beta_schedule, zero_terminal_snr):
    """At each integer timestep alpha**2 is diffusers' alphas_cumprod, and the variance is preserved."""
    schedule = DDPM(beta_schedule, "v_prediction", zero_terminal_snr=zero_terminal_snr)
    theirs = DDPMScheduler(
        beta_schedule=beta_schedule, beta_start=0.00085, beta_end=0.012, rescale_betas_zero_snr=zero_terminal_snr
    )
    alpha, sigma = schedule.coefficients(torch.arange(1000))
    torch.testing.assert_close(alpha**2, theirs.alphas_cumprod.double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones(1000).double(), rtol=0, atol=1e-12)


def test_ends(schedule):
    """The clean end is exactly clean; the noisy end exactly noise for flow matching and zero terminal SNR."""
    alpha, sigma = schedule.coefficients(torch.tensor([schedule.clean_timestep, schedule.noisy_timestep]))
    assert (alpha[0], sigma[0]) == (1, 0)
    pure = schedule.is_flow_matching or schedule.zero_terminal_snr
    assert (alpha[1] == 0) == pure
    assert sigma[1] > 0.99


def test_angle_and_timestep_are_inverse(schedule):
    """Both ways, between the table's entries too, and the angle is that of the coefficients."""
    timestep = LEVELS[1:] if schedule.is_flow_matching else torch.cat([torch.tensor([-1.0, -0.5]).double(), LEVELS])
    angle = schedule.angle(timestep)
    assert (schedule.timestep_at(angle) - timestep).abs().max() < 1e-8
    alpha, sigma = schedule.coefficients(timestep)
    assert (torch.atan2(sigma, alpha) - angle).abs().max() < 1e-12
    assert (angle.diff() > 0).all()


def test_sampling_grid(schedule):
    """A sampler's grid goes strictly down from the noisy to the clean end in as many steps as asked."""
    for steps in (1, 7, 50, 1000, 2500):
        grid = schedule.sampling_timesteps(steps)
        assert grid.shape == (steps + 1,)
        assert grid.dtype == torch.float64
        assert (grid[0], grid[-1]) == (schedule.noisy_timestep, schedule.clean_timestep)
        assert (grid.diff() < 0).all()


def test_flow_grid_is_shifted():
    """Shift 3 puts the middle of the grid at sigma = 3/4 (SD3: 3 * 0.5 / (1 + 2 * 0.5))."""
    assert FlowMatching(shift=3.0).sampling_timesteps(2).tolist() == [1000, 750, 0]


def test_training_levels_are_shifted_as_sampling_ones():
    """Half of the levels of a uniform density lie above the shifted middle."""
    timesteps = FlowMatching(shift=3.0).sample_timesteps(20_000, torch.Generator().manual_seed(0))
    assert timesteps.median() == pytest.approx(750, abs=6)


def quantiles(schedule):
    timesteps = schedule.sample_timesteps(40_000, torch.Generator().manual_seed(0))
    assert timesteps.dtype == torch.float64
    assert (timesteps >= 0).all()
    assert (timesteps <= 1000).all()
    return (timesteps / 1000).quantile(torch.tensor([0.1, 0.5, 0.9]).double()).tolist()


def logistic(x):
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (FlowMatching(), [0.1, 0.5, 0.9]),
        # 1.2816 is the normal distribution's 90 % quantile.
        (FlowMatching(density="logit_normal"), [logistic(-1.2816), 0.5, logistic(1.2816)]),
        (
            FlowMatching(density="logit_normal", logit_mean=0.5, logit_std=0.5),
            [logistic(0.5 - 0.6408), logistic(0.5), logistic(0.5 + 0.6408)],
        ),
        # Beta(2, 1) has the distribution function t**2, Beta(1, 3) has 1 - (1 - t)**3.
        (FlowMatching(density="beta", beta_alpha=2.0), [math.sqrt(0.1), math.sqrt(0.5), math.sqrt(0.9)]),
        (FlowMatching(density="beta", beta_beta=3.0), [1 - 0.9 ** (1 / 3), 1 - 0.5 ** (1 / 3), 1 - 0.1 ** (1 / 3)]),
        # SD3 eq. 20, f(u) = 1 - u - s (cos(pi/2 u)**2 - 1 + u), falls with u.
        (
            FlowMatching(density="mode", mode_scale=1.29),
            [1 - u - 1.29 * (math.cos(math.pi / 2 * u) ** 2 - 1 + u) for u in (0.9, 0.5, 0.1)],
        ),
    ],
    ids=["uniform", "logit-normal", "logit-normal moved", "beta(2,1)", "beta(1,3)", "mode"],
)
def test_densities(schedule, expected):
    """Each density has the quantiles of its formula."""
    assert quantiles(schedule) == pytest.approx(expected, abs=0.012)


@pytest.mark.parametrize("density", ["uniform", "logit_normal", "mode", "beta"])
def test_training_levels_come_from_the_generator_alone(density):
    """Same generator, same levels, and torch's global generator is neither read nor moved."""
    schedule = FlowMatching(density=density)
    before = torch.get_rng_state()
    first = schedule.sample_timesteps(8, torch.Generator().manual_seed(3))
    torch.rand(5)
    again = schedule.sample_timesteps(8, torch.Generator().manual_seed(3))
    torch.set_rng_state(before)
    schedule.sample_timesteps(8, torch.Generator().manual_seed(4))
    assert torch.equal(first, again)
    assert torch.equal(torch.get_rng_state(), before)


def test_ddpm_levels_are_its_timesteps():
    """DDPM trains on the integers 0..999, all of them."""
    timesteps = DDPM().sample_timesteps(40_000, torch.Generator().manual_seed(0))
    assert timesteps.unique().tolist() == list(range(1000))


def test_impossible_combinations_are_refused():
    """Velocity is flow matching's; epsilon says nothing at pure noise."""
    with pytest.raises(ValueError, match="velocity"):
        DDPM(prediction="velocity")
    with pytest.raises(ValueError, match="epsilon"):
        DDPM(prediction="epsilon", zero_terminal_snr=True)


def test_add_noise():
    """``alpha * latents + sigma * noise``, each sample at its own level."""
    latents, noise = torch.ones(3, 1, 2, 2), -torch.ones(3, 1, 2, 2)
    x = FlowMatching().add_noise(latents, noise, torch.tensor([0.0, 500.0, 1000.0]))
    assert x[:, 0, 0, 0].tolist() == [1, 0, -1]


def test_a_grid_that_ends_above_the_data_is_diffusers():
    """Some pipelines stretch the levels so that the last step begins higher: the ends stay, all between move."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    theirs = FlowMatchEulerDiscreteScheduler(shift=3.0, shift_terminal=0.02)
    theirs.set_timesteps(sigmas=torch.linspace(1, 0, 6)[:-1].tolist())
    ours = FlowMatching(shift=3.0, terminal=0.02).sampling_timesteps(5)
    assert ours.tolist() == pytest.approx([1000 * sigma for sigma in theirs.sigmas.tolist()], abs=1e-3)
    assert ours[-2] == pytest.approx(20.0)
    assert FlowMatching(terminal=0.02).sampling_timesteps(1).tolist() == [1000.0, 0.0]
