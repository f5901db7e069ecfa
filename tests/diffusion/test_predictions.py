"""Prediction types: every conversion undoes another one."""

import pytest
import torch
from comfyui_rollout.diffusion.predictions import (
    PREDICTION_TYPES,
    blend,
    determinant,
    mix,
    per_item,
    per_sample,
    to_denoised,
    to_target,
)


@pytest.fixture
def pair(generator):
    """Clean latents and noise, float64."""
    return torch.randn(2, 6, 2, 3, 3, generator=generator, dtype=torch.float64)


def test_round_trips(schedule, pair):
    """Latents come back from what a perfect network puts out, to float64's precision, for each schedule."""
    latents, noise = pair
    timestep = torch.tensor([0.5, 3.0, 100.0, 500.0, 700.25, 950.0], dtype=torch.float64)
    alpha, sigma = schedule.coefficients(timestep)
    x = schedule.add_noise(latents, noise, timestep)
    output = to_target(schedule.prediction, latents, noise, alpha, sigma)
    assert (to_denoised(schedule.prediction, output, x, alpha, sigma) - latents).abs().max() < 1e-12


@pytest.mark.parametrize("kind", PREDICTION_TYPES)
@pytest.mark.parametrize("other", PREDICTION_TYPES)
def test_one_type_tells_any_other(kind, other, pair):
    """Through the latents and the noise that it implies, each type gives the output of each other type."""
    latents, noise = pair
    angle = torch.linspace(0.1, 1.4, 6, dtype=torch.float64)
    alpha, sigma = angle.cos(), angle.sin()
    x = blend((alpha, latents), (sigma, noise))
    output = to_target(kind, latents, noise, alpha, sigma)
    denoised = to_denoised(kind, output, x, alpha, sigma)
    implied = denoised, blend((1 / sigma, x), (-alpha / sigma, denoised))
    expected = to_target(other, latents, noise, alpha, sigma)
    assert (to_target(other, *implied, alpha, sigma) - expected).abs().max() < 1e-12


def test_the_papers_formulas(pair):
    """The signs and weights of the table, written out."""
    latents, noise = pair
    sigma = torch.full((6,), 0.6, dtype=torch.float64)
    alpha = torch.full((6,), 0.8, dtype=torch.float64)
    wanted = {
        "velocity": noise - latents,
        "epsilon": noise,
        "v_prediction": 0.8 * noise - 0.6 * latents,
        "sample": latents,
    }
    for kind, expected in wanted.items():
        torch.testing.assert_close(to_target(kind, latents, noise, alpha, sigma), expected)


def test_the_determinant_is_zero_only_where_a_type_fails():
    """Epsilon says nothing at pure noise, sample nothing new at the clean end; the other two never fail."""
    alpha, sigma = torch.tensor([1.0, 0.6, 0.0]), torch.tensor([0.0, 0.8, 1.0])
    zeros = {kind: (determinant(kind, alpha, sigma) == 0).tolist() for kind in PREDICTION_TYPES}
    assert zeros == {
        "velocity": [False, False, False],
        "epsilon": [False, False, True],
        "v_prediction": [False, False, False],
        "sample": [True, False, False],
    }


def test_an_unknown_type_is_refused():
    """A misspelt type is an error that names the choices."""
    with pytest.raises(ValueError, match="velocity, epsilon"):
        mix("eps", torch.ones(1), torch.ones(1))


def test_blend_weighs_each_sample(pair):
    """A weight of each sample reaches that sample, whatever the shape of the latents, and works out in float32."""
    latents, noise = pair
    weight = torch.arange(6, dtype=torch.float64)
    expected = weight[:, None, None, None] * latents - noise
    torch.testing.assert_close(blend((weight, latents), (-torch.ones(6).double(), noise)), expected)
    assert blend((weight, latents.float())).dtype == torch.float32


def test_levels_must_fit_the_batch(pair):
    """A level for another number of samples is an error, not a silent broadcast."""
    with pytest.raises(ValueError, match="do not fit"):
        per_sample(torch.ones(1), pair[0])


def test_per_item_is_the_mean_of_each_sample():
    """One number a sample, whatever the number of dimensions."""
    assert per_item(torch.tensor([[[1.0, 3.0]], [[5.0, 7.0]]])).tolist() == [2, 6]
