"""The validation loss: the same question each time, at levels spread as training draws them."""

from itertools import pairwise

import pytest
import torch
from comfyui_rollout.diffusion import seeds
from comfyui_rollout.diffusion.schedules import DDPM, FlowMatching
from comfyui_rollout.diffusion.validation import timesteps_of_each, validation_losses


def generators(items):
    return [seeds.generator(0, "test", item) for item in items]


@pytest.mark.parametrize("schedule", [FlowMatching(), FlowMatching(shift=3.0), DDPM()])
def test_each_item_has_one_level_in_each_share_of_those_that_training_draws(schedule):
    """A few images see all of training's levels, as often as it draws them: no item has only easy ones."""
    levels = timesteps_of_each(schedule, generators(range(64)), 4)
    drawn = schedule.sample_timesteps(100_000, torch.Generator().manual_seed(1)).sort().values
    edges = [drawn[0], *(drawn[k * 25_000] for k in (1, 2, 3)), drawn[-1]]
    slack = 0.03 * (drawn[-1] - drawn[0])
    for share, (low, high) in enumerate(pairwise(edges)):
        assert (levels[share] >= low - slack).all()
        assert (levels[share] <= high + slack).all()
    assert len(levels.unique()) > 200
    assert abs(levels.mean() - drawn.mean()) < slack


@pytest.mark.parametrize("schedule", [FlowMatching(), DDPM(prediction="epsilon")])
def test_who_knows_the_answer_has_no_loss_and_who_says_nothing_has_that_of_the_target(schedule):
    """Two networks whose loss is known: the one that inverts the noising, and zero."""
    latents = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))

    def knows(x, timestep, conditioning):
        alpha, sigma = (value.reshape(-1, 1, 1, 1) for value in schedule.coefficients(timestep.cpu()))
        noise = (x - alpha * latents) / sigma
        return (noise - latents if schedule.is_flow_matching else noise).float()

    def silent(x, timestep, conditioning):
        return torch.zeros_like(x)

    none = validation_losses(knows, latents, {}, schedule, generators([0, 1]), levels=4)
    assert none.max() < 1e-4
    found = validation_losses(silent, latents, {}, schedule, generators([0, 1]), levels=256)
    wanted = 1 + (latents**2).mean((1, 2, 3)) if schedule.is_flow_matching else torch.ones(2)
    assert torch.allclose(found, wanted, rtol=0.06)


def test_an_items_loss_does_not_depend_on_who_else_is_in_the_batch():
    """Nor on how often it was asked before: the curve moves by the weights alone."""
    latents = torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))

    def ask(items):
        return validation_losses(
            lambda x, t, c: 0.5 * x, latents[items], {}, FlowMatching(), generators(items), levels=3
        )

    assert torch.equal(ask([0, 1, 2]), torch.cat([ask([0]), ask([1, 2])]))


def test_only_what_the_mask_shows_counts():
    """As in training: black is not looked at."""
    latents, mask = torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)
    mask[..., :2] = 1

    def wrong_where_it_is_black(x, timestep, conditioning):
        sigma = (timestep / 1000).reshape(-1, 1, 1, 1)
        return torch.where(mask > 0, x / sigma, torch.full_like(x, 50.0)).float()

    found = validation_losses(
        wrong_where_it_is_black, latents, {}, FlowMatching(), generators([0]), levels=2, mask=mask
    )
    assert found < 1e-4
