"""A whole ragged batch walked down its grid, or samples from pure noise."""

import pytest
import torch
from comfyui_rollout.diffusion.rollout import ragged_grid
from comfyui_rollout.diffusion.schedules import FlowMatching
from comfyui_rollout.diffusion.solvers import integrate, solver
from every_solver import EVERY_SOLVER, distance, name_of, normal, walk


@pytest.mark.parametrize("which", EVERY_SOLVER, ids=name_of)
def test_a_ragged_batch_equals_its_items_one_by_one(mixture, schedule, which):
    """Sources, targets and lengths of their own: batching must not mix the items' levels or histories."""
    model, x, solve = mixture(schedule), normal(5, 1, 2, 2), solver(*which)
    lengths = torch.tensor([7, 4, 4, 2, 1])
    source = torch.tensor([schedule.noisy_timestep, 900.0, 500.0, 640.0, 321.5], dtype=torch.float64)
    target = torch.tensor([400.0, schedule.clean_timestep, 77.0, 600.0, 300.0], dtype=torch.float64)
    together = integrate(model, schedule, x, ragged_grid(source, target, lengths), lengths, {}, solve)
    for item in range(len(x)):
        one = slice(item, item + 1)
        grid = ragged_grid(source[one], target[one], lengths[one])
        alone = integrate(model, schedule, x[one], grid, lengths[one], {}, solve)
        assert distance(together[one], alone) < 1e-6


@pytest.mark.parametrize("which", EVERY_SOLVER, ids=name_of)
def test_sampling_from_pure_noise_to_clean_stays_finite(mixture, schedule, which):
    """The infinite log-SNR at both ends never becomes a NaN, in any step, and the samples have the data's spread."""
    seen = []
    grid = schedule.sampling_timesteps(10)[:, None].expand(-1, 256)
    x = normal(256, 1, 1, 1, dtype=torch.float32)
    lengths = torch.full((256,), 10)

    def observe(step, x):
        seen.append(x)

    samples = integrate(mixture(schedule), schedule, x, grid, lengths, {}, solver(*which), observe)
    assert len(seen) == 11
    assert all(state.isfinite().all() for state in seen)
    assert samples.std() == pytest.approx(1.05, abs=0.2)  # the mixture's own is 1.04


@pytest.mark.parametrize("which", EVERY_SOLVER, ids=name_of)
def test_a_solver_costs_what_it_says(mixture, which):
    """Solver.calls, from which costs are estimated, is the number of model calls in a step."""
    schedule, calls = FlowMatching(), []
    ends = torch.full((2,), 900.0).double(), torch.full((2,), 100.0).double()

    def counted(x, timestep, conditioning):
        calls.append(len(x))
        return mixture(schedule)(x, timestep, conditioning)

    walk(counted, schedule, normal(2, 1, 1, 1), *ends, 5, solver(*which))
    assert len(calls) == 5 * solver(*which).calls
