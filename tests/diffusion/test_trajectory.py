"""The trajectory target: one coarse step from the rolled-out state lands on the model's own fine path."""

import pytest
import torch
from comfyui_rollout.diffusion.losses import target
from comfyui_rollout.diffusion.predictions import to_denoised
from comfyui_rollout.diffusion.rollout import Draw, RolloutPlan, noisy_batch, ragged_grid, roll_out
from comfyui_rollout.diffusion.rollouts.beside import Beside, beside, lowest
from comfyui_rollout.diffusion.schedules import FlowMatching
from comfyui_rollout.diffusion.solvers import Level, Predictor, integrate, solver, transfer
from comfyui_rollout.diffusion.trajectory import fine_grid, fine_path, following, target_onto

LENGTHS = torch.tensor([2, 0, 1, 3, 1])
STRIDE = torch.tensor([80.0, 0.0, 40.0, 50.0, 60.0]).double()


def trajectory_target(model, batch, sampler=None, **reference):
    """What a loss makes of the two: the walk, and the output that lands on it."""
    return target_onto(fine_path(model, batch, **reference), batch, sampler)


@pytest.fixture
def batch(schedule, generator):
    """Five items, float64: one is not to be rolled out, the last is within a stride of the clean end."""
    latents, noise = torch.randn(2, 5, 1, 2, 2, generator=generator, dtype=torch.float64)
    timestep = torch.tensor([700.0, 500.0, 400.0, 600.0, 30.0]).double()
    return noisy_batch(latents, noise, timestep, schedule, {"latents": latents, "noise": noise})


def rolled_out(model, batch):
    return roll_out(model, batch, Draw(LENGTHS, batch.timestep + LENGTHS * STRIDE, STRIDE), solver("euler"))


@pytest.mark.parametrize("name", ["euler", "unipc"])
def test_the_next_coarse_step_lands_on_the_fine_path(mixture, batch, name):
    """An Euler step with this target from each drifted state ends where the fine integration, done alone, ends."""
    schedule, model = batch.schedule, mixture(batch.schedule)
    rolled = rolled_out(model, batch)
    wanted = trajectory_target(model, rolled, reference_steps=4, solve=solver(name))
    following = (rolled.timestep - STRIDE).clamp(min=schedule.clean_timestep)
    now, then = Level.at(schedule, rolled.timestep), Level.at(schedule, following)
    denoised = to_denoised(schedule.prediction, wanted, rolled.x, now.alpha, now.sigma)
    landed = transfer(rolled.x, denoised, now, then)
    assert following[4] == schedule.clean_timestep
    for item in (0, 2, 3, 4):
        one = slice(item, item + 1)
        steps = 4 * LENGTHS[one]
        walked = ragged_grid(rolled.source[one], rolled.timestep[one], steps)
        last = ragged_grid(rolled.timestep[one], following[one], torch.tensor([4]))
        x = schedule.add_noise(rolled.latents[one], rolled.noise[one], rolled.source[one])
        grid = torch.cat([walked, last[1:]])
        y = integrate(model, schedule, x, grid, steps + 4, {}, solver(name))
        assert (landed[one] - y).abs().max() < 1e-9


SAMPLERS = [("euler", 1), ("dpm", 1), ("dpm", 2), ("dpm", 3), ("unipc", 1), ("unipc", 2), ("unipc", 3)]


@pytest.mark.parametrize("which", SAMPLERS)
def test_a_network_that_puts_out_the_target_lets_its_sampler_follow_the_fine_path(mixture, batch, which):
    """The sampler's next step, with all that it remembers of the rollout, ends on the fine path: for each solver."""
    schedule, model, solve = batch.schedule, mixture(batch.schedule), solver(*which)
    rolled = roll_out(model, batch, Draw(LENGTHS, batch.timestep + LENGTHS * STRIDE, STRIDE), solve, remember=True)
    reference = {"reference_steps": 4, "solve": solver("rk4")}
    path = fine_path(model, rolled, **reference)
    wanted = trajectory_target(model, rolled, **reference, sampler=solve)
    now, then = Level.at(schedule, rolled.timestep), Level.at(schedule, following(rolled))
    assert sorted(path.places.tolist()) == sorted(place for part in rolled.memory for place in part.places.tolist())
    for part in rolled.memory:
        told = Predictor(lambda x, timestep, told, part=part: wanted[part.places], {}, schedule)
        at = now.items(part.places), then.items(part.places)
        landed, _ = solve.step(told, rolled.x[part.places], *at, part.history)
        y = torch.zeros_like(batch.x).index_copy(0, path.places, path.y)[part.places]
        assert (landed - y).abs().max() < 1e-9


def test_where_a_sampler_has_no_history_its_target_is_the_plain_one(mixture, batch):
    """Euler's next step is what the target is made for anyway; heun's and rk4's do not depend on one output alone."""
    model = mixture(batch.schedule)
    reference = {"reference_steps": 2, "solve": solver("euler")}
    for name in ("euler", "heun", "rk4"):
        solve = solver(name)
        rolled = roll_out(model, batch, Draw(LENGTHS, batch.timestep + LENGTHS * STRIDE, STRIDE), solve, remember=True)
        plain = trajectory_target(model, rolled, **reference)
        assert torch.equal(trajectory_target(model, rolled, **reference, sampler=solve), plain)


def test_for_flow_matching_it_is_a_velocity(mixture, generator):
    """velocity* = (x - y) / (t - t'), with y from DESIGN's formula written out."""
    schedule, model = FlowMatching(), mixture(FlowMatching())
    latents, noise = torch.randn(2, 1, 1, 2, 2, generator=generator, dtype=torch.float64)
    batch = noisy_batch(latents, noise, torch.tensor([500.0]).double(), schedule, {})
    draw = Draw(torch.tensor([1]), torch.tensor([600.0]).double(), torch.tensor([100.0]).double())
    rolled = roll_out(model, batch, draw, solver("euler"))
    y = 0.4 * latents + 0.6 * noise
    for t in (0.6, 0.55, 0.5, 0.45):
        y = y - 0.05 * model(y, torch.tensor([1000 * t]).double(), {})
    wanted = trajectory_target(model, rolled, reference_steps=2, solve=solver("euler"))
    torch.testing.assert_close(wanted, (rolled.x - y) / 0.1)


def test_straight_paths_keep_the_ordinary_target(point_mass, batch):
    """For a model that is right already there is nothing to correct, with any prediction type."""
    model = point_mass(batch.schedule)
    rolled = rolled_out(model, batch)
    wanted = trajectory_target(model, rolled, reference_steps=3, solve=solver("euler"))
    torch.testing.assert_close(wanted, target(batch), rtol=0, atol=1e-9)


def test_other_items_keep_their_target_and_cost_nothing(mixture, batch):
    """Teacher-forced items are untouched, bit for bit; forwards hold the rolled-out items that are under way only."""
    sizes = []

    def counting(x, timestep, conditioning):
        sizes.append(len(x))
        return mixture(batch.schedule)(x, timestep, conditioning)

    rolled = rolled_out(mixture(batch.schedule), batch)
    wanted = trajectory_target(counting, rolled, reference_steps=2, solve=solver("euler"))
    assert torch.equal(wanted[1], target(rolled)[1])
    assert not torch.equal(wanted[0], target(rolled)[0])
    assert sizes == [4, 4, 4, 4, 2, 2, 1, 1]
    sizes.clear()
    assert torch.equal(trajectory_target(counting, batch, reference_steps=2, solve=solver("euler")), target(batch))
    assert sizes == []


def test_no_coarse_step_is_left_at_the_clean_end(mixture, generator):
    """An item that trains on the data itself keeps its ordinary target instead of a division by zero."""
    latents, noise = torch.randn(2, 1, 1, 2, 2, generator=generator)
    batch = noisy_batch(latents, noise, torch.tensor([0.0]).double(), FlowMatching(), {})
    draw = Draw(torch.tensor([1]), torch.tensor([100.0]).double(), torch.tensor([100.0]).double())
    rolled = roll_out(mixture(batch.schedule), batch, draw, solver("euler"))
    wanted = trajectory_target(mixture(batch.schedule), rolled, reference_steps=2, solve=solver("euler"))
    assert torch.equal(wanted, target(batch))


def test_the_fine_grid_divides_each_coarse_step():
    """The coarse levels are among the fine ones, and one more step follows, exactly to its end."""
    grid = fine_grid(
        torch.tensor([90.0, 45.0]).double(),
        torch.tensor([50.0, 25.0]).double(),
        torch.tensor([30.0, -1.0]).double(),
        torch.tensor([2, 1]),
        2,
    )
    assert grid[:, 0].tolist() == [90, 80, 70, 60, 50, 40, 30]
    assert grid[:, 1].tolist() == [45, 35, 25, 12, -1, -1, -1]


def test_nothing_waits_for_the_device(batch):
    """With latents on a device that holds no numbers, any look at their values would fail."""
    absent = noisy_batch(batch.latents.to("meta"), batch.noise.to("meta"), batch.timestep, batch.schedule, {})

    def network(x, timestep, conditioning):
        return x * timestep[:, None, None, None]

    rolled = roll_out(
        network, absent, Draw(LENGTHS, batch.timestep + LENGTHS * STRIDE, STRIDE), solver("unipc"), remember=True
    )
    reference = {"reference_steps": 2, "solve": solver("unipc")}
    assert trajectory_target(network, rolled, **reference).device.type == "meta"
    assert trajectory_target(network, rolled, **reference, sampler=solver("unipc")).device.type == "meta"


def test_copies_that_are_noised_again_go_on_from_there(mixture):
    """Their fine path is one coarse step from their own level on, whatever their rollout was, for any sampler."""
    schedule, plan = FlowMatching(), RolloutPlan(3, 1.0, step_size=100.0)
    asked = []

    def network(x, timestep, conditioning):
        asked.append(len(x))
        return mixture(schedule)(x, timestep, conditioning)

    latents, noise = torch.randn(2, 4, 1, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    levels = torch.tensor([400.0, 500.0, 600.0, 900.0]).double()
    base, copies = noisy_batch(latents, noise, levels, schedule, {}), Beside(levels=2)
    draw = plan.draw_down(levels, lowest(schedule, copies), 0, torch.Generator().manual_seed(1))
    generator, unipc = torch.Generator().manual_seed(2), solver("unipc")
    both = beside(network, base, draw, unipc, copies, generator, remember=True)
    asked.clear()
    path = fine_path(network, both, reference_steps=2, solve=solver("euler"))
    assert asked == [8, 8]
    wanted = target_onto(path, both, unipc)
    then = following(both)
    now_sigma, then_sigma = both.timestep[4:] / 1000, then[4:] / 1000
    landed = both.x[4:] + (then_sigma - now_sigma)[:, None, None, None] * wanted[4:]
    torch.testing.assert_close(landed, path.y[path.places.argsort()], rtol=0, atol=1e-9)
