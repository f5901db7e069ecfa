"""Noise schedules, rollouts and losses, from a configuration."""

import pytest
from brought_over import ROLLOUTS, at_least, inputs, kinds, small, source


@pytest.mark.parametrize("family", ["flux", "sd3", "sdxl", "sd1x"])
@pytest.mark.parametrize("wish", [None, True, False])
def test_reflexflows_rule(family, wish):
    """Not set: on for flow matching with rollouts, which is what auto means; true insists; false opts out."""
    imported = small(model_family=family, scheduled_sampling_reflexflow=wish, **ROLLOUTS)
    if family in ("sdxl", "sd1x") or wish is False:
        assert "ReflexFlowLoss" not in kinds(imported)
        assert source(imported, "OptimizerStep", "loss") == ("DiffusionLoss", 0)
    else:
        assert inputs(imported, "ReflexFlowLoss")["reflexflow"] == ("enable" if wish else "auto")
        assert "DiffusionLoss" not in kinds(imported)
    said = any("only for flow matching" in line for line in imported.report.changed)
    assert said == (family in ("sdxl", "sd1x") and wish is True)


def test_noise_schedules():
    """Uniform and beta timesteps; zero terminal SNR brings the DDPM schedule."""
    uniform = small(flow_use_uniform_schedule=True, flow_use_beta_schedule=True)
    at_least(inputs(uniform, "FlowMatchingSchedule"), timestep_sampling="uniform", logit_std=1.0)
    beta = small(flow_use_beta_schedule="true", flow_beta_schedule_beta="3", flow_schedule_shift=0)
    at_least(inputs(beta, "FlowMatchingSchedule"), timestep_sampling="beta", beta_alpha=2.0, beta_beta=3.0, shift=1.0)
    zero = small(model_family="sd2x", rescale_betas_zero_snr=True)
    at_least(inputs(zero, "DDPMSchedule"), prediction="v_prediction", zero_terminal_snr=True)
    assert source(zero, "NoisyBatch", "schedule") == ("DDPMSchedule", 0)


def test_what_changes_the_noise():
    """MixFlow, a perturbed input and an offset are inputs of Noisy Batch; off, they are 0."""
    noise = ("mixflow", "input_perturbation", "perturbation_steps", "noise_offset")

    def brought(**config):
        return {name: inputs(small(**config), "NoisyBatch").get(name, 0) for name in noise}

    assert brought(mixflow_gamma=0.5, noise_offset=0.05) == dict.fromkeys(noise, 0)
    on = {"mixflow_enabled": True, "input_perturbation": 0.1, "input_perturbation_steps": 9, "offset_noise": True}
    assert brought(**on, noise_offset=0.05) == {
        "mixflow": 0.8,
        "input_perturbation": 0.1,
        "perturbation_steps": 9,
        "noise_offset": 0.05,
    }
