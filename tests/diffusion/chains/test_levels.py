"""The levels of chains: distributed as the schedule's, whatever the plan."""

import pytest
import torch
from comfyui_rollout.diffusion.chains import draw_ways
from comfyui_rollout.diffusion.rollout import RolloutPlan
from comfyui_rollout.diffusion.schedules import DDPM, FlowMatching

DENSITIES = [
    FlowMatching(),
    FlowMatching(shift=3.0),
    FlowMatching(density="logit_normal", logit_mean=0.3, logit_std=0.8, shift=1.7),
    FlowMatching(density="mode", mode_scale=1.29),
    FlowMatching(density="mode", mode_scale=-0.8),
    FlowMatching(density="beta", beta_alpha=2.0, beta_beta=3.5),
    DDPM(),
]
PLANS = [
    {"max_step_offset": 3, "step_size": 100.0},
    {"max_step_offset": 30, "step_size": 40.0},
    {"max_step_offset": 6, "step_size": 20.0, "step_size_max": 300.0},
    {"max_step_offset": 8, "step_size": 50.0, "strategy": "biased_early"},
]


@pytest.mark.parametrize(
    ("schedule", "options"),
    [*((schedule, PLANS[0]) for schedule in DENSITIES), *((DENSITIES[2], options) for options in PLANS[1:])],
    ids=str,
)
def test_the_levels_of_chains_have_the_schedules_density(schedule, options):
    """A million trained levels of chains under way, from the first step on, are distributed as a million drawn ones."""
    plan, generator = RolloutPlan(probability=1.0, rollout="persistent", **options), torch.Generator().manual_seed(1)
    slots, updates = 8000, 125
    grid, steps = draw_ways(plan, schedule, slots, generator, midway=True)
    age, seen = torch.zeros(slots, dtype=torch.int64), []
    for _ in range(updates):
        seen.append(grid.gather(1, age[:, None])[:, 0])
        age += 1
        over = (age >= steps).nonzero().flatten()
        grid[over], steps[over] = draw_ways(plan, schedule, len(over), generator)
        age[over] = 0
    asked = schedule.sample_timesteps(slots * updates, generator).sort().values
    at = asked[:: len(asked) // 100]

    def below(levels):
        return torch.searchsorted(levels, at + 0.5).double() / len(levels)

    assert (below(torch.cat(seen).sort().values) - below(asked)).abs().max() < 0.008
    # At any single moment too, the first included.
    for moment in (0, 1, updates - 1):
        assert (below(seen[moment].sort().values) - below(asked)).abs().max() < 0.035


@pytest.mark.parametrize(("from_noise", "size"), [(True, 660.0), (True, 670.0), (False, 900.0), (False, 1000.0)])
def test_a_step_of_the_whole_way_makes_no_chain(from_noise, size):
    """What the plan says of chains that would end with their first step is what becomes of them."""
    plan = RolloutPlan(4, 1.0, step_size=size, rollout="persistent", from_noise=from_noise)
    ways = draw_ways(plan, FlowMatching(), 200, torch.Generator().manual_seed(0))
    assert plan.ends_at_once(FlowMatching()) == (int(ways.steps.max()) == 1) == (size in (670.0, 1000.0))
