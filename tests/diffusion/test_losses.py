"""Losses against their papers' formulas and diffusers' own."""

from dataclasses import replace

import pytest
import torch
from comfyui_rollout.diffusion import losses
from comfyui_rollout.diffusion.predictions import to_denoised
from comfyui_rollout.diffusion.rollout import RolloutPlan, noisy_batch, roll_out
from comfyui_rollout.diffusion.schedules import DDPM, FlowMatching
from comfyui_rollout.diffusion.solvers import ask, solver
from comfyui_rollout.diffusion.trajectory import fine_path, target_onto
from diffusers import DDPMScheduler
from diffusers.training_utils import compute_snr


@pytest.fixture
def rolled(schedule, generator):
    """Four items, float64; the second and fourth were rolled out and have drifted."""
    latents, noise, drift = torch.randn(3, 4, 1, 2, 2, generator=generator, dtype=torch.float64)
    timestep = torch.tensor([100.0, 300.0, 600.0, 900.0], dtype=torch.float64)
    batch = noisy_batch(latents, noise, timestep, schedule, {})
    lengths = torch.tensor([0, 1, 0, 3])
    x = batch.x + 0.1 * (lengths > 0)[:, None, None, None] * drift
    return replace(batch, x=x, lengths=lengths)


def test_the_original_target_ignores_the_drift(rolled):
    """The drawn noise stays the target: the same as for the teacher-forced batch."""
    assert torch.equal(losses.target(rolled), losses.target(replace(rolled, x=rolled.teacher_forced)))


def test_the_clean_target_leads_to_the_latents(rolled):
    """Denoising the rolled-out latents in one step with this target gives exactly the clean latents."""
    alpha, sigma = rolled.schedule.coefficients(rolled.timestep)
    wanted = losses.target(rolled, "clean")
    denoised = to_denoised(rolled.schedule.prediction, wanted, rolled.x, alpha, sigma)
    torch.testing.assert_close(denoised, rolled.latents, rtol=0, atol=1e-10)


def test_targets_agree_where_nothing_was_rolled_out(rolled):
    """Both targets of a teacher-forced item are the same number, bit for bit."""
    still = ~rolled.rolled
    assert torch.equal(losses.target(rolled, "clean")[still], losses.target(rolled)[still])


def test_no_target_tells_of_a_perturbation(rolled):
    """What moves the latents of items that were not rolled out is in neither target, nor counted as their drift.

    Or the clean target would make up for input_perturbation, and divide MixFlow's whole way to noise by a small sigma.
    """
    still = ~rolled.rolled
    moved = replace(rolled, x=rolled.x + 1)
    assert torch.equal(losses.target(moved, "clean")[still], losses.target(rolled)[still])
    assert moved.drift[still].tolist() == [0, 0]
    assert (moved.drift[rolled.rolled] > 0.5).all()


@pytest.fixture
def placed(generator):
    """``placed(schedule)``: five items by hand, the first teacher-forced, the last one a step from the clean end."""

    def build(schedule):
        latents, noise = torch.randn(2, 5, 1, 2, 2, generator=generator)
        timestep = torch.tensor([400.0, 400.0, 400.0, 50.0, 10.0]).double() + schedule.clean_timestep
        batch = noisy_batch(latents, noise, timestep, schedule, {})
        lengths = torch.tensor([0, 1, 4, 3, 2])
        stride = torch.where(lengths > 0, 100.0, 0.0).double()
        return replace(batch, lengths=lengths, stride=stride, source=timestep + lengths * stride)

    return build


def test_the_ordinary_target_counts_each_item_the_same(placed, schedule):
    """Nothing is divided by, so nothing is made up for."""
    assert losses.target_weight(placed(schedule), "original").tolist() == [1] * 5


def test_the_clean_target_counts_as_at_the_source(placed, schedule):
    """(sigma / sigma_source)**2 for rolled-out items, on every schedule; 1 for the others."""
    batch = placed(schedule)
    (_, sigma), (_, source) = (schedule.coefficients(at) for at in (batch.timestep, batch.source))
    got = losses.target_weight(batch, "clean")
    torch.testing.assert_close(got[1:], (sigma / source)[1:] ** 2)
    assert got[0] == 1
    assert (got[1:] < 1).all()


def test_the_clean_weight_in_numbers(placed):
    """Flow matching: sigma is the timestep over 1000."""
    expected = [1, (4 / 5) ** 2, (4 / 8) ** 2, (50 / 350) ** 2, (10 / 210) ** 2]
    assert losses.target_weight(placed(FlowMatching()), "clean").tolist() == pytest.approx(expected)


def test_the_trajectory_counts_where_its_step_lands(placed, schedule):
    """Less than 1 only where the coarse step is cut off at the clean end: the share of it that is left, squared."""
    got = losses.target_weight(placed(schedule), "trajectory")
    assert got.tolist() == pytest.approx([1, 1, 1, 0.25, 0.01])


@pytest.mark.parametrize(
    ("kind", "before", "after"), [("original", 0, 0.05), ("clean", 0.8, 0.05), ("trajectory", 0.2, 0.15)]
)
def test_no_few_items_own_the_loss(mixture, generator, kind, before, after):
    """Of a perfect model's loss the worst 1% of the items hold little, and without the weight nearly all."""
    items, schedule = 1000, FlowMatching()
    which = torch.multinomial(torch.tensor([0.5, 0.3, 0.2]), items * 16, replacement=True, generator=generator)
    means, stds = torch.tensor([-1.0, 0.4, 1.5])[which], torch.tensor([0.3, 0.5, 0.4])[which]
    latents = (means + stds * torch.randn(items * 16, generator=generator)).reshape(items, 1, 4, 4)
    noise = torch.randn(latents.shape, generator=generator)
    batch = noisy_batch(latents, noise, schedule.sample_timesteps(items, generator), schedule, {})
    plan, model = RolloutPlan(max_step_offset=5, probability=1.0, step_size=50.0), mixture(schedule)
    batch = roll_out(model, batch, plan.draw(batch.timestep, schedule, 0, generator), solver("euler"))
    if kind == "trajectory":
        wanted = target_onto(fine_path(model, batch, reference_steps=2, solve=solver("unipc")), batch)
    else:
        wanted = losses.target(batch, kind)
    loss = losses.per_item(losses.elementwise(ask(model, batch.x, batch.timestep, {}), wanted)).double()

    def share_of_the_worst(loss):
        return float(loss.topk(items // 100).values.sum() / loss.sum())

    assert share_of_the_worst(loss) > before
    assert share_of_the_worst(loss * losses.target_weight(batch, kind)) < after


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("gamma", [1.0, 5.0])
def test_min_snr_is_the_papers(prediction, gamma):
    """min(snr, gamma) / snr for epsilon, / (snr + 1) for v, * 1 for sample, with diffusers' own signal-to-noise."""
    schedule, timestep = DDPM("scaled_linear", prediction), torch.tensor([1, 50, 300, 999])
    snr = compute_snr(
        DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012), timestep
    ).double()
    expected = snr.clamp(max=gamma) / {"epsilon": snr, "v_prediction": snr + 1, "sample": 1}[prediction]
    got = losses.min_snr_weight(schedule, timestep.double(), gamma)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=0)


def test_min_snr_for_flow_matching():
    """The velocity's error is the latents' error over sigma: min(snr, gamma) * sigma**2, finite at both ends."""
    got = losses.min_snr_weight(FlowMatching(), torch.tensor([0.0, 500.0, 1000.0]).double(), 5.0)
    torch.testing.assert_close(got, torch.tensor([0.0, 0.25, 0.0]).double())


def test_min_snr_at_zero_terminal_snr():
    """At pure noise v's weight is 0, not a NaN."""
    schedule = DDPM("scaled_linear", "v_prediction", zero_terminal_snr=True)
    assert losses.min_snr_weight(schedule, torch.tensor([999.0]).double(), 5.0).tolist() == [0]


def test_elementwise():
    """Squared error, and pseudo-Huber: quadratic for small errors, linear with slope 2c for large ones."""
    error = torch.tensor([1e-3, 100.0, 101.0])
    zero = torch.zeros(3)
    torch.testing.assert_close(losses.elementwise(error, zero), error**2)
    huber = losses.elementwise(error, zero, "huber", huber_c=0.1)
    assert huber[0] == pytest.approx(1e-6, rel=1e-3)
    assert huber[2] - huber[1] == pytest.approx(0.2, rel=1e-3)
    assert losses.elementwise(error.bfloat16(), zero.bfloat16()).dtype == torch.float32


@pytest.fixture
def drifted(generator):
    """A flow-matching batch in which all but the first item were rolled out."""
    latents, noise, x = torch.randn(3, 4, 2, 8, 8, generator=generator)
    timestep = torch.tensor([500.0, 500.0, 300.0, 800.0]).double()
    batch = noisy_batch(latents, noise, timestep, FlowMatching(), {})
    lengths = torch.tensor([0, 1, 2, 3])
    return replace(batch, x=torch.where((lengths > 0)[:, None, None, None], x, batch.x), lengths=lengths)


def test_anti_drift_measures_the_direction(drifted):
    """0 along x - latents, 2 across, 4 against it, at any length; and 0 for the item that was not rolled out."""
    away = drifted.x - drifted.latents
    across = away.flatten(1).roll(1, 1) * torch.tensor([1.0, -1.0]).repeat(64)
    across = across - away.flatten(1) * (across * away.flatten(1)).sum(1, True) / (away.flatten(1) ** 2).sum(1, True)
    for output, expected in [(3 * away, 0), (across.reshape(away.shape), 2), (-0.1 * away, 4)]:
        assert losses.anti_drift(output, drifted).tolist() == pytest.approx([0] + 3 * [expected], abs=1e-4)


def test_anti_drift_stops_near_the_data(drifted):
    """Below the floor the direction is rounding noise, and does not count."""
    low = replace(drifted, timestep=torch.tensor([5.0, 5.0, 10.0, 20.0]).double())
    counts = losses.anti_drift(-(low.x - low.latents), low, min_sigma=0.01)
    assert counts.tolist() == pytest.approx([0, 0, 4, 4], abs=1e-4)


def test_frequency_weight_is_its_formula(drifted, generator):
    """1 + alpha * (clean - biased) / mean|clean - biased|, clamped at 0; 1 for the item that was not rolled out."""
    clean, biased = torch.randn(2, 4, 2, 8, 8, generator=generator)
    weight = losses.frequency_weight(biased, replace(drifted, clean_output=clean), alpha=0.7)
    missing = (clean - biased)[2]
    torch.testing.assert_close(weight[2], (1 + 0.7 * missing / missing.abs().mean()).clamp(min=0))
    assert weight.min() == 0
    assert (weight[0] == 1).all()
    assert (losses.frequency_weight(biased, drifted) == 1).all()  # no clean output was asked for


def test_frequency_weight_is_scale_free(drifted, generator):
    """With ``mean`` neither a louder output nor a larger image changes alpha's meaning; ``l1`` vanishes with size."""
    clean, biased = torch.randn(2, 4, 2, 8, 8, generator=generator)
    small = replace(drifted, clean_output=clean)
    louder = losses.frequency_weight(100 * biased, replace(small, clean_output=100 * clean))
    torch.testing.assert_close(louder, losses.frequency_weight(biased, small))
    large = {name: value.repeat(1, 1, 4, 4) for name, value in (("clean", clean), ("biased", biased), ("x", small.x))}
    larger = replace(small, x=large["x"], clean_output=large["clean"])
    spread = {
        norm: [
            (losses.frequency_weight(b, batch, norm=norm)[1:] - 1).abs().mean().item()
            for b, batch in ((biased, small), (large["biased"], larger))
        ]
        for norm in ("mean", "l1")
    }
    assert spread["mean"][1] == pytest.approx(spread["mean"][0], rel=1e-4)
    assert spread["l1"][1] == pytest.approx(spread["l1"][0] / 16, rel=1e-2)


def test_weights_carry_no_gradient(drifted):
    """The weight is a constant of the step: the gradient flows through the error alone."""
    output = torch.zeros_like(drifted.x, requires_grad=True)
    batch = replace(drifted, clean_output=torch.ones_like(drifted.x))
    assert not losses.frequency_weight(output, batch).requires_grad


# Masks and weights


@pytest.fixture
def left_half():
    """A mask (4, 1, 4, 4) of the left half for two items, of everything, and of a soft edge."""
    mask = torch.ones(4, 1, 4, 4)
    mask[:2, :, :, 2:] = 0
    mask[3] = torch.linspace(0, 1, 4)
    return mask


def test_a_masked_mean_is_that_of_what_is_shown(left_half, generator):
    """Normalised: half an image makes no half loss; soft edges count by half."""
    values = torch.rand(4, 3, 4, 4, generator=generator)
    mean = losses.masked_mean(values, left_half)
    torch.testing.assert_close(mean[:2], values[:2, :, :, :2].mean((1, 2, 3)))
    torch.testing.assert_close(mean[2], values[2].mean())
    torch.testing.assert_close(mean[3], (values[3] * left_half[3]).sum() / left_half[3].expand(3, -1, -1).sum())


def test_without_a_mask_nothing_changes(generator):
    """The plain mean, bit for bit, and with a mask that shows everything the same number."""
    values = torch.rand(4, 3, 4, 4, generator=generator)
    assert torch.equal(losses.masked_mean(values, None), losses.per_item(values))
    torch.testing.assert_close(losses.masked_mean(values, torch.ones(4, 1, 4, 4)), losses.per_item(values))
    assert torch.equal(losses.weighted(values.mean((1, 2, 3)), None), losses.per_item(values))


def test_an_empty_mask_makes_no_loss():
    """And no division by zero."""
    values = torch.ones(2, 1, 4, 4, requires_grad=True)
    mean = losses.masked_mean(values, torch.zeros(2, 1, 4, 4))
    mean.sum().backward()
    assert mean.tolist() == [0, 0]
    assert (values.grad == 0).all()


def test_the_direction_of_what_is_shown(left_half, generator):
    """The angle between two directions, without the elements behind the mask; soft ones count by their share."""
    velocity, away = torch.randn(2, 4, 3, 4, 4, generator=generator, dtype=torch.float64)
    found = losses.misdirection(velocity, away, left_half)
    dots = [(left_half * a * b).sum((1, 2, 3)) for a, b in ((velocity, away), (velocity, velocity), (away, away))]
    expected = 2 - 2 * dots[0] / (dots[1] * dots[2]).sqrt()
    torch.testing.assert_close(found, expected.float(), rtol=1e-4, atol=1e-5)
    whole = losses.misdirection(velocity, away)
    torch.testing.assert_close(found[2], whole[2])
    assert not torch.allclose(found[:2], whole[:2])


@pytest.mark.parametrize("norm", ["mean", "l1"])
def test_compensation_looks_at_what_is_shown(left_half, generator, norm):
    """Whatever lies behind the mask, the weights of the rest are the same."""
    missing = torch.randn(4, 3, 4, 4, generator=generator)
    other = missing + 100 * (left_half == 0)
    shown = (left_half > 0).expand(-1, 3, -1, -1)
    first, second = (losses.compensation(value, 0.5, norm, left_half)[shown] for value in (missing, other))
    assert torch.equal(first, second)
    assert torch.equal(losses.compensation(missing, 0.5, norm), losses.compensation(missing, 0.5, norm, None))


def test_weights_scale_each_sample(generator):
    """Class images that count half."""
    loss = torch.rand(3, generator=generator)
    weight = torch.tensor([1.0, 0.5, 0.0])
    assert torch.equal(losses.weighted(loss, weight), loss * weight)
