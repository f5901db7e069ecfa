"""Exposure bias, measured on Gaussian data, where the perfect model and a biased one can be written down."""

import math

import pytest
import torch
from comfyui_rollout.diffusion.exposure_bias import (
    BANDS,
    LevelStatistics,
    frequency_bands,
    measure,
    statistics,
    summary,
)
from comfyui_rollout.diffusion.predictions import per_sample
from comfyui_rollout.diffusion.schedules import FlowMatching
from comfyui_rollout.diffusion.solvers import solver

STD = 0.6
IMAGES = 1024
CHANCE = math.sqrt(4 / (IMAGES * 64))  # of the log ratio of two variances, each over so many independent numbers


def velocity(scale):
    """The exact velocity for latents ~ N(0, STD**2), times ``scale``: below 1, the noise is not removed fast enough."""

    def network(x, timestep, conditioning):
        sigma = per_sample(timestep.double() / 1000, x)
        alpha = 1 - sigma
        return scale * (sigma - alpha * STD**2) / (sigma**2 + (alpha * STD) ** 2) * x

    return network


@pytest.fixture
def measured(generator):
    """``measured(scale)``: the statistics of 50 accurate solver steps with that model."""

    def path(scale):
        latents = STD * torch.randn(IMAGES, 1, 8, 8, generator=generator)
        return measure(velocity(scale), FlowMatching(), latents, {}, solver("unipc"), steps=50, generator=generator)

    return path


def test_a_perfect_model_has_no_bias(measured):
    """At each level all statistics of its samples are those of the data, as well as chance allows."""
    path = measured(1.0)
    assert len(path) == 50
    assert [level.timestep for level in path] == pytest.approx([1000 - 20 * step for step in range(50)])
    floor = max(abs(level.log_floor(name)) for level in path for name in level.noise_floor)
    assert floor < 0.1
    for level in path:
        assert abs(level.log_ratio("variance")) < 4 * CHANCE
        for name in level.sampled:
            assert abs(level.log_ratio(name)) < 3 * floor, (level.timestep, name)


def test_a_biased_model_is_found_out(measured):
    """A tenth too little velocity leaves too much variance: little at first, more on the way, far beyond chance."""
    path = measured(0.9)
    found = summary(path)
    assert found["variance"] > 0.05 > 5 * found["variance_floor"]
    late = [level.log_ratio("variance") for level in path[25:]]
    assert min(late) > 8 * CHANCE
    assert abs(path[0].log_ratio("variance")) < 4 * CHANCE


def test_the_summary_is_a_mean_of_sizes():
    """A bias that has one sign early and the other late does not cancel, and more levels are no more bias."""
    level = {name: math.exp(value) for name, value in {"up": 0.1, "down": -0.3}.items()}
    ones = {"up": 1.0, "down": 1.0}
    path = [LevelStatistics(1000.0, level, ones, ones), LevelStatistics(500.0, ones, level, ones)] * 2
    found = summary(path)
    assert found == pytest.approx({"up": 0.1, "down": 0.3, "up_floor": 0.05, "down_floor": 0.15})


@pytest.mark.parametrize(("height", "width"), [(8, 8), (9, 7), (64, 32)])
def test_frequency_bands_are_all_frequencies_once(height, width):
    """No frequency is left out or counted twice; every band has some; the mean belongs to the lowest."""
    bands = frequency_bands(height, width)
    assert bands.shape == (BANDS, height, width // 2 + 1)
    assert (bands.sum(0) == 1).all()
    assert bands.flatten(1).any(1).all()
    assert bands[0, 0, 0]


def test_statistics_tell_frequencies_apart(generator):
    """White noise of variance 4 has power 4 in every band; a constant picture is in the lowest band only."""
    white = 2 * torch.randn(512, 1, 8, 8, generator=generator)
    found = statistics(white, 3 * torch.ones_like(white))
    assert found["output"] == pytest.approx(3)
    assert found["variance"] == pytest.approx(4, rel=0.05)
    assert [found[f"band_{number}"] for number in range(1, BANDS + 1)] == pytest.approx([4] * BANDS, rel=0.1)
    flat = white[:, :, :1, :1].expand(-1, -1, 8, 8)
    more = statistics(white + flat, white)
    assert more["band_1"] > 2 * found["band_1"]
    assert more["band_4"] == pytest.approx(found["band_4"], rel=1e-4)


@pytest.mark.parametrize("value", [0.0, math.nan, math.inf])
def test_statistics_refuse_what_cannot_be_compared(generator, value):
    """A logarithm of zero or of no number would be a picture without a curve."""
    good = torch.randn(4, 1, 8, 8, generator=generator)
    bad = torch.full_like(good, value)
    for x, output in ((bad, good), (good, bad), (torch.ones_like(good), good)):
        with pytest.raises(ValueError, match="not finite numbers, or all the same"):
            statistics(x, output)
