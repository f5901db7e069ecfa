"""Copies beside their items: SOAR's published algorithm."""

import pytest
import torch
from captioned_batches import batch_of, network
from comfyui_rollout.diffusion import losses
from comfyui_rollout.diffusion.noisy_batch import noisy_batch
from comfyui_rollout.diffusion.rollout import RolloutPlan
from comfyui_rollout.diffusion.rollouts.beside import Beside, beside, lowest
from comfyui_rollout.diffusion.rollouts.guidance import Guidance
from comfyui_rollout.diffusion.solvers import ask, solver

PLAN = RolloutPlan(max_step_offset=1, probability=1.0, step_size=25.0)


def copied(batch, copies, plan=PLAN, guide=None, solve=None, model=network):
    generator = torch.Generator().manual_seed(5)
    draw = plan.draw_down(batch.timestep, lowest(batch.schedule, copies), 0, generator)
    return beside((guide or Guidance()).of(model), batch, draw, solve or solver("euler"), copies, generator)


@pytest.mark.parametrize("weight", [1.0, 0.25])
def test_it_is_soar(weight):
    """The published algorithm by hand, from the same tensors and levels: states, targets and the loss of the whole."""
    base = batch_of()
    guide = Guidance(4.5, negative={"caption": torch.zeros(1, 1, dtype=torch.float64)})
    both = copied(base, Beside(weight, levels=6), guide=guide)
    n, copies = len(base.x), len(both.x) - len(base.x)
    assert copies == 6 * n
    z0, z1, c = base.latents, base.noise, base.conditioning["caption"]
    sigma0 = base.timestep / 1000
    sigma1 = (sigma0 - 1 / 40).clamp(min=0)
    s0, s1 = (level.reshape(-1, 1, 1, 1) for level in (sigma0, sigma1))
    z = (1 - s0) * z0 + s0 * z1
    velocity, without = (network(z, base.timestep, {"caption": caption}) for caption in (c, torch.zeros_like(c)))
    there = z + (without + 4.5 * (velocity - without)) * (s1 - s0)
    repeat = torch.arange(n).repeat_interleave(6)
    new = both.timestep[n:] / 1000
    assert (new >= sigma1[repeat]).all()
    assert new.max() < 1
    s = new.reshape(-1, 1, 1, 1)
    a = (s - s1[repeat]) / (1 - s1[repeat])
    expected = (1 - a) * there[repeat] + a * z1[repeat]
    torch.testing.assert_close(both.x[n:], expected, rtol=0, atol=1e-12)
    wanted = (expected - z0[repeat]) / s
    torch.testing.assert_close(losses.target(both, "clean")[n:], wanted, rtol=0, atol=1e-9)

    base_loss = (network(z, base.timestep, {"caption": c}) - (z1 - z0)).square().mean((1, 2, 3))
    copy_loss = (network(expected, both.timestep[n:], {"caption": c[repeat]}) - wanted).square().mean((1, 2, 3))
    published = (base_loss.sum() + weight * copy_loss.sum()) / (n + weight * copies)
    output = ask(network, both.x, both.timestep, both.conditioning)
    each = losses.per_item((output - losses.target(both, "clean")).square())
    each = losses.weighted(each * losses.target_weight(both, "clean"), both.weight)
    assert float(each.mean()) == pytest.approx(float(published), rel=1e-6)


def test_the_levels_are_drawn_evenly():
    """From where the rollout ended to the noisiest level, with six of each on average a sixth of the way apart."""
    base = batch_of(count=2000)
    for upper in (1.0, 0.8):
        both = copied(base, Beside(levels=6, upper=upper))
        below = (base.timestep - 25).clamp(min=0).repeat_interleave(6)
        share = (both.timestep[2000:] - below)[below < 700] / (1000 * upper - below)[below < 700]
        assert share.min() >= 0
        assert share.max() <= 1
        assert share.mean() == pytest.approx(0.5, abs=0.01)
        assert share.std() == pytest.approx(12**-0.5, abs=0.01)


@pytest.mark.parametrize("levels", [0, 1, 3])
def test_nothing_is_replaced(schedule, levels):
    """The batch is there as it was, bit for bit, and behind it are its copies with all that belongs to them."""
    base = batch_of(schedule, mask=torch.rand(8, 1, 4, 4), weight=torch.rand(8))
    both = copied(base, Beside(levels=levels), plan=RolloutPlan(max_step_offset=3, probability=0.6, step_size=30.0))
    copies = len(both.x) - 8
    assert copies > 0
    for name in ("latents", "noise", "x", "teacher_forced", "timestep", "lengths", "mask", "weight"):
        assert torch.equal(getattr(both, name)[:8], getattr(base, name))
    origin = [(both.noise[8 + copy] == base.noise).flatten(1).all(1).nonzero().item() for copy in range(copies)]
    for name in ("latents", "mask", "weight"):
        assert torch.equal(getattr(both, name)[8:], getattr(base, name)[origin])
    assert torch.equal(both.conditioning["caption"][8:], base.conditioning["caption"][origin])
    assert (both.lengths[8:] >= 1).all()
    assert torch.equal(both.teacher_forced[8:], schedule.add_noise(both.latents[8:], both.noise[8:], both.timestep[8:]))
    if levels == 0:
        assert torch.equal(both.source[8:], base.timestep[origin])
        assert (both.timestep[8:] >= lowest(schedule, Beside())).all()
    assert both.x.isfinite().all()
    assert losses.target(both, "clean").isfinite().all()


def test_for_a_perfect_network_copies_are_teacher_forced(point_mass, schedule):
    """Noised again with the same noise, what was rolled out without error is what the schedule itself would make."""
    base = batch_of(schedule)
    base = noisy_batch(
        base.latents, base.noise, base.timestep, schedule, {"latents": base.latents, "noise": base.noise}
    )
    for levels in (0, 4):
        both = copied(base, Beside(levels=levels), model=point_mass(schedule))
        torch.testing.assert_close(both.x, both.teacher_forced, rtol=0, atol=1e-9)


def test_without_rollouts_it_is_the_same_batch():
    """Nothing chosen: no forward, no copy, the very same object."""
    batch = batch_of()
    none = RolloutPlan(max_step_offset=1, probability=0.0)
    assert copied(batch, Beside(levels=6), plan=none) is batch
