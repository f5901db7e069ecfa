"""ReflexFlow's two objectives, against their formulas written out."""

from dataclasses import replace

import pytest
import torch
from comfyui_rollout.diffusion.losses import anti_drift, frequency_weight, per_item, target
from comfyui_rollout.diffusion.reflexflow import defar, spec
from comfyui_rollout.diffusion.rollout import noisy_batch
from comfyui_rollout.diffusion.schedules import DDPM, FlowMatching


@pytest.fixture
def batch(generator):
    """Four flow-matching items; the last two were rolled out."""
    latents, noise, drift, clean = torch.randn(4, 4, 1, 4, 4, generator=generator)
    timestep = torch.tensor([200.0, 500.0, 500.0, 800.0]).double()
    batch = noisy_batch(latents, noise, timestep, FlowMatching(), {})
    lengths = torch.tensor([0, 0, 1, 2])
    mask = (lengths > 0)[:, None, None, None]
    return replace(batch, x=batch.x + 0.2 * mask * drift, lengths=lengths, clean_output=mask * clean)


class Linear(torch.nn.Module):
    """A network with two weights: ``a * x + b * timestep / 1000``."""

    def __init__(self):
        super().__init__()
        self.a, self.b = torch.nn.Parameter(torch.tensor(0.7)), torch.nn.Parameter(torch.tensor(-0.3))

    def forward(self, x, timestep, conditioning):
        return self.a * x + self.b * timestep[:, None, None, None] / 1000


def test_spec_is_its_formula(batch, generator):
    """beta2 * mean(w * error**2) + beta1 * anti_drift for rolled-out items, the plain mean for the others."""
    output = torch.randn(4, 1, 4, 4, generator=generator)
    wanted = target(batch)
    loss, parts = spec(output, wanted, batch, alpha=0.5, beta1=3.0, beta2=2.0)
    error, weight = (output - wanted) ** 2, frequency_weight(output, batch, 0.5)
    torch.testing.assert_close(loss[:2], per_item(error)[:2])
    torch.testing.assert_close(loss[2:], (2 * per_item(weight * error) + 3 * anti_drift(output, batch))[2:])
    assert set(parts) == {"flow", "anti_drift", "weight_min", "weight_mean", "weight_max"}
    for name, value in {"min": weight[2:].min(), "mean": weight[2:].mean(), "max": weight[2:].max()}.items():
        torch.testing.assert_close(parts[f"weight_{name}"], value)
    assert parts["anti_drift"][:2].tolist() == [0, 0]


def test_spec_leaves_a_teacher_forced_batch_alone(batch, generator):
    """Without a rolled-out item the loss is the ordinary one, bit for bit, whatever the betas."""
    output = torch.randn(4, 1, 4, 4, generator=generator)
    still = replace(batch, x=batch.teacher_forced, lengths=torch.zeros(4, dtype=torch.int64), clean_output=None)
    loss, parts = spec(output, target(still), still, beta1=99.0, beta2=99.0)
    assert torch.equal(loss, per_item((output - target(still)) ** 2))
    assert parts["weight_min"] == parts["weight_max"] == 1


def test_defar_is_its_formula(batch):
    """The error at t0 weighed by the bias at t1, and the direction of the velocity at the drifted state."""
    model = Linear()
    loss, parts = defar(
        model, batch, alpha=0.5, beta1=3.0, beta2=2.0, generator=torch.Generator().manual_seed(5), min_sigma=0.0
    )
    t0 = batch.timestep
    t1 = t0 * torch.rand(4, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    t0, t1 = t0.float()[:, None, None, None] / 1000, t1.float()[:, None, None, None] / 1000
    v0 = model(batch.teacher_forced, 1000 * t0.flatten(), {})
    drifted = batch.teacher_forced + (t1 - t0) * v0
    biased = model(drifted, 1000 * t1.flatten(), {})
    clean = model((1 - t1) * batch.latents + t1 * batch.noise, 1000 * t1.flatten(), {})
    missing = (clean - biased).detach()
    weight = (1 + 0.5 * missing / missing.abs().mean((1, 2, 3), keepdim=True)).clamp(min=0)
    flow = per_item(weight * (v0 - (batch.noise - batch.latents)) ** 2)
    unit = [v / v.flatten(1).norm(dim=1)[:, None, None, None] for v in (biased, drifted - batch.latents)]
    direction = ((unit[0] - unit[1]) ** 2).sum((1, 2, 3))
    torch.testing.assert_close(parts["flow"], flow.detach())
    torch.testing.assert_close(parts["anti_drift"], direction.detach())
    expected = 2 * flow + 3 * direction
    torch.testing.assert_close(loss, expected)
    weights = (model.a, model.b)  # the gradient goes through the drift, by default, and through no weight
    torch.testing.assert_close(
        torch.autograd.grad(loss.sum(), weights), torch.autograd.grad(expected.sum(), weights), rtol=1e-4, atol=1e-4
    )


def test_defar_trains_through_the_drift_unless_detached(batch):
    """The gradient of the anti-drift term reaches the first prediction; detached, the numbers are the same."""
    results = []
    for detach in (False, True):
        model = Linear()
        loss, _ = defar(
            model, batch, beta2=0.0, generator=torch.Generator().manual_seed(5), detach_drift=detach, min_sigma=0.0
        )
        loss.sum().backward()
        results.append((loss.detach(), model.a.grad))
    torch.testing.assert_close(results[0][0], results[1][0])
    assert not torch.isclose(results[0][1], results[1][1])


def test_defar_makes_its_own_drift(batch):
    """Rolled-out latents are not looked at, and the spans come from the given generator alone."""
    still = replace(batch, x=batch.teacher_forced, lengths=torch.zeros(4, dtype=torch.int64), clean_output=None)
    losses = [defar(Linear(), b, generator=torch.Generator().manual_seed(5))[0] for b in (batch, still)]
    assert torch.equal(*losses)
    assert not torch.equal(losses[0], defar(Linear(), batch, generator=torch.Generator().manual_seed(6))[0])


def test_defar_stops_near_the_data(batch):
    """A drift that ends below the floor has no trustworthy direction."""
    _, parts = defar(Linear(), batch, generator=torch.Generator().manual_seed(5), min_sigma=1.0)
    assert parts["anti_drift"].tolist() == [0, 0, 0, 0]


def test_both_are_for_flow_matching_only(generator):
    """Their direction is a velocity's; another prediction type is refused with a line that says so."""
    latents, noise = torch.randn(2, 1, 1, 2, 2, generator=generator)
    batch = noisy_batch(latents, noise, torch.tensor([5.0]).double(), DDPM(), {})
    with pytest.raises(ValueError, match="flow matching only; this schedule predicts epsilon"):
        spec(noise, noise, batch)
    with pytest.raises(ValueError, match="flow matching only"):
        defar(Linear(), batch, generator=generator)


def test_nothing_waits_for_the_device(batch):
    """With latents on a device that holds no numbers, any look at their values would fail."""
    absent = noisy_batch(batch.latents.to("meta"), batch.noise.to("meta"), batch.timestep, batch.schedule, {})
    absent = replace(absent, lengths=batch.lengths, clean_output=absent.x)
    loss, _ = spec(absent.noise, target(absent, "clean"), absent)
    assert loss.device.type == "meta"
    loss, _ = defar(Linear().to("meta"), absent, generator=torch.Generator().manual_seed(5))
    assert loss.device.type == "meta"


# Masks


@pytest.fixture
def masked(batch):
    """The same batch; the loss looks at the left half."""
    mask = torch.ones(4, 1, 4, 4)
    mask[..., 2:] = 0
    return replace(batch, mask=mask)


def test_spec_sends_no_gradient_behind_the_mask(masked, generator):
    """Exactly none, from neither term; and what lies there changes no loss."""
    output = torch.randn(4, 1, 4, 4, generator=generator, requires_grad=True)
    loss, _ = spec(output, target(masked), masked)
    loss.sum().backward()
    assert (output.grad[..., 2:] == 0).all()
    assert (output.grad[..., :2] != 0).all()
    other = output.detach() + 5 * (1 - masked.mask)
    torch.testing.assert_close(spec(other, target(masked), masked)[0], loss.detach())


def test_a_mask_that_shows_everything_changes_nothing(batch, generator):
    """Both objectives, up to rounding."""
    output = torch.randn(4, 1, 4, 4, generator=generator)
    whole = replace(batch, mask=torch.ones(4, 1, 4, 4))
    torch.testing.assert_close(spec(output, target(batch), batch)[0], spec(output, target(whole), whole)[0])
    plain, shown = (
        defar(Linear(), each, generator=torch.Generator().manual_seed(5))[0].detach() for each in (batch, whole)
    )
    torch.testing.assert_close(plain, shown)


def test_defar_judges_nothing_behind_the_mask(masked):
    """A network that sees each pixel by itself gets exactly no gradient from those behind the mask."""
    gain = torch.full((1, 1, 4, 4), 0.7, requires_grad=True)
    loss, parts = defar(lambda x, timestep, conditioning: gain * x, masked, generator=torch.Generator().manual_seed(5))
    loss.sum().backward()
    assert (gain.grad[..., 2:] == 0).all()
    assert (gain.grad[..., :2] != 0).all()
    moved = replace(masked, latents=masked.latents + 3 * (1 - masked.mask))
    moved = replace(moved, teacher_forced=moved.schedule.add_noise(moved.latents, moved.noise, moved.timestep))
    again, _ = defar(lambda x, timestep, conditioning: gain * x, moved, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(again, loss)
    assert parts["anti_drift"].shape == (4,)
