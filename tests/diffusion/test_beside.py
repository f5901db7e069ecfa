"""Copies beside their items: SOAR's published algorithm, its noise, and the steps with new noise."""

import math

import pytest
import torch
from comfyui_rollout.diffusion import losses
from comfyui_rollout.diffusion.noisy_batch import noisy_batch
from comfyui_rollout.diffusion.rollout import RolloutPlan, roll_out
from comfyui_rollout.diffusion.rollouts.beside import Beside, beside, lowest
from comfyui_rollout.diffusion.rollouts.guidance import Guidance
from comfyui_rollout.diffusion.rollouts.plan import Draw
from comfyui_rollout.diffusion.rollouts.stochastic import Noise
from comfyui_rollout.diffusion.schedules import DDPM, FlowMatching
from comfyui_rollout.diffusion.solvers import ask, solver

FLOW = FlowMatching(density="logit_normal")
PLAN = RolloutPlan(max_step_offset=1, probability=1.0, step_size=25.0)


def network(x, timestep, conditioning):
    """Something that is far from straight, and depends on its caption."""
    return torch.sin(3 * x) + 0.001 * timestep[:, None, None, None] * x + conditioning["caption"][:, :, None, None]


def batch_of(schedule=FLOW, count=8, dtype=torch.float64, **more):
    generator = torch.Generator().manual_seed(3)
    latents, noise = torch.randn(2, count, 1, 4, 4, generator=generator, dtype=dtype)
    told = {"caption": torch.randn(count, 1, generator=generator, dtype=dtype)}
    return noisy_batch(latents, noise, schedule.sample_timesteps(count, generator), schedule, told, **more)


def copied(batch, copies, plan=PLAN, guide=None, solve=None, model=network):
    generator = torch.Generator().manual_seed(5)
    draw = plan.draw_down(batch.timestep, lowest(batch.schedule, copies), 0, generator)
    return beside(model, batch, draw, solve or solver("euler"), copies, generator, guide or Guidance())


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
