"""The noise-schedule nodes, and Noisy Batch."""

from dataclasses import replace

import pytest
import torch
from comfyui_rollout.diffusion.schedules import DDPM, FlowMatching
from comfyui_rollout.nodes import DDPMSchedule, DigitsDataset, FlowMatchingSchedule, NoisyBatch


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
