"""What will be otherwise than in SimpleTuner is said, and nothing else."""

import pytest
from brought_over import ROLLOUTS, at_least, inputs, small
from comfyui_rollout.importing.simpletuner.changes import CHANGES

RAMP = ROLLOUTS | {"scheduled_sampling_ramp_steps": 100}


@pytest.mark.parametrize(
    ("config", "words", "node", "values"),
    [
        (ROLLOUTS, "10 steps span 1% of it", "Rollout", {"step_size": 1.0}),
        (ROLLOUTS, "always takes Euler steps", "Rollout", {"sampler": "euler"}),
        (ROLLOUTS | {"scheduled_sampling_sampler": "dpm"}, "choose dpm there", "Rollout", {"sampler": "euler"}),
        (ROLLOUTS | {"model_family": "sdxl"}, "towards more noise in SimpleTuner", "Rollout", {"sampler": "unipc"}),
        (RAMP, "takes scheduled_sampling_probability (1) in place of 0", "Rollout", {"prob_start": 0.0}),
        (
            RAMP | {"scheduled_sampling_prob_end": 0},
            "scheduled_sampling_prob_end: SimpleTuner",
            "Rollout",
            {"prob_end": 0},
        ),
        (
            RAMP | {"scheduled_sampling_start_step": 50, "scheduled_sampling_prob_start": 0.2},
            "before it SimpleTuner rolls out with prob_start",
            "Rollout",
            {"start_step": 50, "prob_start": 0.2},
        ),
        (
            ROLLOUTS | {"scheduled_sampling_start_step": 50},
            "ignores it without ramp_steps",
            "Rollout",
            {"start_step": 50},
        ),
        (
            ROLLOUTS | {"scheduled_sampling_probability": 0},
            "at 0 SimpleTuner still trains with ReflexFlow",
            "Rollout",
            {"probability": 0.0},
        ),
        (ROLLOUTS, "stay at 1 and do nothing", "ReflexFlowLoss", {"fc_norm": "l1"}),
        (ROLLOUTS, "adds the anti-drift term to every item", "ReflexFlowLoss", {"beta1": 10.0}),
        ({"scheduled_sampling_reflexflow": True}, "there are no rollouts", "ReflexFlowLoss", {"reflexflow": "enable"}),
        ({"snr_gamma": 5, "scheduled_sampling_reflexflow": False}, "snr_gamma", "DiffusionLoss", {"snr_gamma": 0.0}),
        ({"grad_clip_method": "value"}, "happens more often", "OptimizerStep", {"clip_norm": 2.0}),
        ({"mixed_precision": "fp8"}, "'fp8' is not offered", "OptimizerStep", {"precision": "bf16"}),
        ({"lr_scheduler": "sine"}, "sine", "Optimizer", {"lr_schedule": "cosine"}),
        ({"lr_scheduler": "wavy"}, "there is no 'wavy' here", "Optimizer", {"lr_schedule": "constant"}),
        ({"optimizer": "bnb-lion8bit"}, "becomes 'lion'", "Optimizer", {"optimizer": "lion"}),
        ({"optimizer": "soap"}, "becomes 'adamw'", "Optimizer", {"optimizer": "adamw"}),
        ({"base_model_precision": "int4-quanto"}, "it is nf4, which needs", "LoadPretrained", {"quantize": "nf4"}),
        ({"base_model_precision": "int2-quanto"}, "has no equal here", "LoadPretrained", {"quantize": "none"}),
        ({"flux_guidance_mode": "random-range"}, "its middle, 2", "LoadPretrained", {"guidance": 2.0}),
        ({"offset_noise": True}, "in a share of the batches", "NoisyBatch", {"noise_offset": 0.1}),
        ({"flux_lora_target": "tiny"}, "becomes the preset 'attention'", "AddLora", {"targets": "attention"}),
        (
            {"model_family": "sdxl", "rescale_betas_zero_snr": True},
            "says nothing at pure noise",
            "LoadPretrained",
            {"prediction": "auto"},
        ),
        (
            {"model_family": "sdxl", "prediction_type": "flow_matching"},
            "samples with the pipeline's own scheduler",
            "FlowMatchingSchedule",
            {"shift": 3.0},
        ),
    ],
)
def test_differences_are_said(config, words, node, values):
    """Where SimpleTuner does not do what it says, or we cannot do the same: in words, with what was set instead."""
    imported = small(**config)
    assert any(words in line for line in imported.report.changed), imported.report.changed
    at_least(inputs(imported, node), **values)
    for line in imported.report.changed:
        assert line in imported.note


def test_nothing_is_said_where_nothing_differs():
    """Rollouts off, an optimizer that we have: no warnings to wade through."""
    config = {"optimizer": "adamw_bf16", "validation_prompt": "a", "loss_type": "l2"}
    assert small(**config).report.changed == []


@pytest.mark.parametrize("key", CHANGES)
def test_what_changes_the_training_is_said(key):
    """Not among what is kept, where nobody looks; and nothing is said of it where it is off."""
    for on in (True, "true", 0.5, {"a": 1}):
        imported = small(model_family="sd3", **{key: on})
        assert any(line.startswith(f"{key}: ") for line in imported.report.changed), on
        assert not any(key in line for line in imported.report.unmapped)
        assert imported.kept["config"][key] == on
    for off in (False, "false", 0, "none", "", None, []):
        imported = small(model_family="sd3", **{key: off})
        assert not any(key in line for line in [*imported.report.changed, *imported.report.unmapped]), off


def test_defaults_are_not_lines():
    """What is off, or what SimpleTuner does anyway, is named in one line."""
    imported = small(use_ema=False, push_to_hub="false", learning_rate="4e-7", lora_type="standard", lora_rank=16)
    assert {"use_ema", "push_to_hub", "learning_rate", "lora_type", "lora_rank"} <= {*imported.report.idle}
    assert not any("use_ema" in line for line in [*imported.report.mapped, *imported.report.ignored])
    (line,) = [line for line in imported.report.text().splitlines() if line.startswith("Off, or as by default")]
    assert "use_ema" in line
