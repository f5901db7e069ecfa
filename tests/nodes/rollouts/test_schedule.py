"""The noise-schedule nodes, and Noisy Batch."""

from dataclasses import replace

import pytest
import torch
from comfyui_rollout.diffusion import seeds
from comfyui_rollout.diffusion.schedules import DDPM, FlowMatching
from comfyui_rollout.nodes import (
    DDPMSchedule,
    DiffusionLoss,
    DigitsDataset,
    FlowMatchingSchedule,
    NewModel,
    NoisyBatch,
    ReflexFlowLoss,
    Rollout,
)
from comfyui_rollout.training.stream import Run, Step


def test_the_widgets_make_the_schedule(wire):
    """Every setting arrives; untouched ones are the schedule's own defaults."""
    assert wire(FlowMatchingSchedule) == FlowMatching()
    assert wire(DDPMSchedule) == DDPM()
    changed = wire(FlowMatchingSchedule, shift=3.0, timestep_sampling="logit_normal", logit_mean=0.5)
    assert changed == FlowMatching(shift=3.0, density="logit_normal", logit_mean=0.5)
    changed = wire(DDPMSchedule, beta_schedule="squaredcos_cap_v2", prediction="v_prediction", zero_terminal_snr=True)
    assert changed == DDPM("squaredcos_cap_v2", "v_prediction", zero_terminal_snr=True)


@pytest.mark.parametrize("sampling", FlowMatchingSchedule.INPUT_TYPES()["required"]["timestep_sampling"][0])
def test_every_timestep_sampling_works(wire, sampling):
    """Each choice of the widget can be drawn from."""
    timestep = wire(FlowMatchingSchedule, timestep_sampling=sampling).sample_timesteps(64, torch.Generator())
    assert timestep.shape == (64,)
    assert 0 <= float(timestep.min()) < float(timestep.max()) <= 1000


def test_zero_terminal_snr_with_epsilon_is_refused_when_built(wire):
    """It cannot work; the other predictions can. Only build sees wired values, so it alone judges."""
    assert not hasattr(DDPMSchedule, "VALIDATE_INPUTS")
    with pytest.raises(ValueError, match="zero_terminal_snr needs v_prediction or sample"):
        wire(DDPMSchedule, prediction="epsilon", zero_terminal_snr=True)
    for prediction in ("v_prediction", "sample"):
        assert wire(DDPMSchedule, prediction=prediction, zero_terminal_snr=True).zero_terminal_snr


@pytest.mark.parametrize("schedule", [FlowMatching(), DDPM()], ids=["flow", "ddpm"])
def test_a_batch_gets_exactly_the_scheduled_noise(wire, pull, schedule):
    """Teacher forcing: x = alpha * latents + sigma * noise at a timestep of each image's own."""
    dataset = wire(DigitsDataset, batch_size=8)
    batch, _ = pull(wire(NoisyBatch, dataset=dataset, schedule=schedule))
    alpha, sigma = (level.reshape(-1, 1, 1, 1) for level in schedule.coefficients(batch.timestep))
    torch.testing.assert_close(batch.x.double(), alpha * batch.latents.double() + sigma * batch.noise.double())
    assert len(batch.timestep.unique()) > 1
    assert "label" in batch.conditioning
    assert not batch.rolled.any()


def noisy(wire, pull, schedule=None, **options):
    dataset = wire(DigitsDataset, batch_size=64)
    return pull(wire(NoisyBatch, dataset=dataset, schedule=schedule or FlowMatching(), **options))[0]


@pytest.mark.parametrize("schedule", [FlowMatching(), DDPM()], ids=["flow", "ddpm"])
def test_input_perturbation_is_more_noise_than_the_target_knows(wire, pull, schedule):
    """x moves by sigma * gamma * xi; latents, noise and levels, of which targets are made, are those without it."""
    plain, moved = (noisy(wire, pull, schedule, input_perturbation=gamma) for gamma in (0.0, 0.2))
    for name in ("latents", "noise", "timestep", "teacher_forced"):
        assert torch.equal(getattr(plain, name), getattr(moved, name))
    _, sigma = schedule.coefficients(plain.timestep)
    xi = (moved.x - plain.x) / (0.2 * sigma.float().reshape(-1, 1, 1, 1))
    assert xi.std() == pytest.approx(1, abs=0.03)
    assert xi.mean() == pytest.approx(0, abs=0.03)
    assert (xi.flatten() @ plain.noise.flatten()) / xi.numel() == pytest.approx(0, abs=0.03)


def test_input_perturbation_may_fall_to_nothing(wire):
    """Evenly over perturbation_steps updates; then the batch is the plain one."""
    stream = wire(
        NoisyBatch,
        dataset=wire(DigitsDataset, batch_size=8),
        schedule=FlowMatching(),
        input_perturbation=0.4,
        perturbation_steps=4,
    )
    run = Run(stream)
    moved = [Step(run, update).value(stream) for update in (0, 1, 3, 4, 9)]
    spread = [
        float(((batch.x - batch.teacher_forced) / (batch.timestep.float() / 1000).reshape(-1, 1, 1, 1)).std())
        for batch in moved
    ]
    assert spread == pytest.approx([0.4, 0.3, 0.1, 0, 0], abs=0.04)
    assert spread[3:] == [0, 0]


def test_mixflow_shows_a_noisier_level_than_it_tells(wire, pull):
    """sigma = 1 - sqrt(U) is told; x is on the same straight path at sigma + U' gamma (1 - sigma)."""
    batches = [noisy(wire, pull, mixflow=0.8, unique_id=str(number)) for number in range(40)]
    told = torch.cat([batch.timestep for batch in batches]) / 1000
    assert told.mean() == pytest.approx(1 / 3, abs=0.02)  # that of 1 - sqrt(U)
    assert (told < 0.5).double().mean() == pytest.approx(0.75, abs=0.03)
    batch = batches[0]
    velocity = batch.noise - batch.latents
    seen = ((batch.x - batch.latents) * velocity).flatten(1).sum(1) / velocity.square().flatten(1).sum(1)
    torch.testing.assert_close(batch.x, batch.latents + seen.reshape(-1, 1, 1, 1) * velocity, rtol=0, atol=1e-5)
    share = (seen.double() - batch.timestep / 1000) / (0.8 * (1 - batch.timestep / 1000))
    assert share.min() > -1e-4
    assert share.max() < 1 + 1e-4
    assert share.mean() == pytest.approx(0.5, abs=0.12)


def test_the_noise_offset_moves_channels(wire, pull):
    """The noise itself is another one, by one number a channel; latents are noised with it, so targets know it."""
    plain, moved = (noisy(wire, pull, noise_offset=offset) for offset in (0.0, 0.5))
    shift = (moved.noise - plain.noise).flatten(2)
    torch.testing.assert_close(shift, shift[..., :1].expand_as(shift), rtol=0, atol=1e-6)
    assert shift[..., 0].std() == pytest.approx(0.5, abs=0.12)
    torch.testing.assert_close(moved.x, FlowMatching().add_noise(moved.latents, moved.noise, moved.timestep))


def test_label_dropout_hides_classes(wire, pull):
    """That share of the labels is the one that stands for none; levels and noise are those without it."""
    plain, hidden = (noisy(wire, pull, label_dropout=chance) for chance in (0.0, 0.25))
    gone = hidden.conditioning["label"] == -1
    assert 6 < int(gone.sum()) < 28
    assert torch.equal(hidden.conditioning["label"][~gone], plain.conditioning["label"][~gone])
    assert torch.equal(hidden.x, plain.x)


def test_label_dropout_needs_somebody_who_knows_no_class(wire, train, graph):
    """A unet with its null class learns it; one without is refused before anything is made."""
    for null_class in (True, False):
        wired = graph(model={"null_class": null_class})
        wired.batch = wire(NoisyBatch, dataset=wired.dataset, schedule=wired.schedule, label_dropout=0.9)
        wired.loss = wire(DiffusionLoss, batch=wired.batch, model=wired.model)
        if null_class:
            before = Run(wired.loss).value(wired.model).network.class_embedding.weight
            after = train(wired, steps=2).weights["class_embedding.weight"]
            assert len(after) == 11
            assert not torch.equal(after[10], before[10])
        else:
            with pytest.raises(ValueError, match=r"^label_dropout in Noisy Batch trains a class for none: turn on"):
                train(wired)


def test_remedies_that_are_off_change_no_bit(wire, pull):
    """All at 0, the batch is that of a workflow which does not know them."""
    off = noisy(wire, pull, input_perturbation=0.0, mixflow=0.0, noise_offset=0.0, perturbation_steps=7)
    stream = wire(NoisyBatch, dataset=wire(DigitsDataset, batch_size=64), schedule=FlowMatching())
    step = Step(Run(stream), 0)
    generator = seeds.generator(0, "RolloutNoisyBatch", 0)
    assert torch.equal(off.timestep, FlowMatching().sample_timesteps(64, generator))
    assert torch.equal(off.noise, torch.randn(64, 1, 8, 8, generator=generator))
    assert torch.equal(off.x, step.value(stream).x)


def test_what_cannot_be_combined_is_refused(wire):
    """Each changes what the network sees at a level: two at once mean nothing that anybody has tried."""
    dataset = wire(DigitsDataset, batch_size=4)
    flow = {"dataset": dataset, "schedule": FlowMatching()}
    with pytest.raises(ValueError, match=r"^mixflow and input_perturbation both change"):
        wire(NoisyBatch, **flow, mixflow=0.8, input_perturbation=0.1)
    with pytest.raises(ValueError, match=r"^mixflow is for flow matching"):
        wire(NoisyBatch, dataset=dataset, schedule=DDPM(), mixflow=0.8)
    model, mixed = wire(NewModel, dataset=dataset), wire(NoisyBatch, **flow, mixflow=0.8)
    with pytest.raises(ValueError, match=r"^mixflow and rollouts both change"):
        wire(Rollout, batch=mixed, model=model)
    with pytest.raises(ValueError, match=r"^objective defar does not look at"):
        wire(ReflexFlowLoss, batch=mixed, model=model, objective="defar")
    perturbed = wire(NoisyBatch, **flow, input_perturbation=0.1)
    wire(Rollout, batch=perturbed, model=model)


def test_noise_belongs_to_node_step_and_seed(wire, pull):
    """Two Noisy Batch nodes on one data set draw different noise; the same one draws the same again."""
    dataset, schedule = wire(DigitsDataset, batch_size=2), FlowMatching()
    one, two = (wire(NoisyBatch, dataset=dataset, schedule=schedule, unique_id=name) for name in ("1", "2"))
    first, _ = pull(one)
    assert torch.equal(pull(one)[0].noise, first.noise)
    for other in (pull(two), pull(one, 1), pull(one, seed=1)):
        assert not torch.equal(other[0].noise, first.noise)


def test_the_noisy_latents_can_be_seen(wire, pull, host):
    """On the node itself, if anybody looks."""
    host.wanted.add("noisy")
    pull(wire(NoisyBatch, dataset=wire(DigitsDataset, batch_size=2), schedule=FlowMatching()), host=host)
    assert host.told == [("show", "RolloutNoisyBatch", "noisy", 0)]


def test_masks_and_weights_go_on_to_the_loss(wire, pull):
    """What the data set says of each image comes with its noisy latents."""
    mask, weight = torch.rand(4, 1, 8, 8), torch.tensor([1.0, 0.5, 1.0, 0.5])
    plain = wire(DigitsDataset, batch_size=4)
    dataset = replace(
        plain, function=lambda step, **inputs: replace(plain.function(step, **inputs), mask=mask, weight=weight)
    )
    batch, _ = pull(wire(NoisyBatch, dataset=dataset, schedule=FlowMatching()))
    assert batch.mask is mask
    assert batch.weight is weight
    bare, _ = pull(wire(NoisyBatch, dataset=plain, schedule=FlowMatching()))
    assert (bare.mask, bare.weight) == (None, None)
