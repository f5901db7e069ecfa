"""What a host's own model is in our words, as far as no host is needed; tests/host does the rest inside ComfyUI."""

import math

import pytest
from comfyui_rollout.diffusion.schedules import DDPM, FlowMatching
from comfyui_rollout.hosts.comfyui_model import Facts
from comfyui_rollout.models.hosted import TARGETS, chosen_layers, schedule_of


def facts(prediction, **options):
    return Facts("Toy", 4, 8, options.pop("levels", ()), prediction, **options)


def levels(schedule):
    return tuple(min(level, 1e4) for level in schedule.angles[1:].tan().tolist())


@pytest.mark.parametrize("schedule", [DDPM(), DDPM(prediction="v_prediction"),
                                      DDPM(prediction="v_prediction", zero_terminal_snr=True)])  # fmt: skip
def test_noise_levels_are_recognised(schedule):
    """By the levels alone, zero terminal SNR with its huge last one included."""
    assert schedule_of(facts(schedule.prediction, levels=levels(schedule))) == schedule


def test_unknown_noise_levels_are_refused():
    """Training on others would teach the model what it is never asked."""
    strange = levels(DDPM(beta_schedule="linear", beta_start=1e-4, beta_end=0.02))
    with pytest.raises(ValueError, match="model: the noise levels of this Toy are none that we can train on"):
        schedule_of(facts("epsilon", levels=strange))


def test_flow_matching_keeps_its_shift():
    assert schedule_of(facts("velocity", shift=math.exp(1.15))) == FlowMatching(shift=round(math.exp(1.15), 4))


LAYERS = dict.fromkeys(
    [
        "img_in", "double_blocks.0.img_attn.qkv", "double_blocks.0.img_mlp.0", "single_blocks.3.linear1",
        "single_blocks.3.modulation.lin", "layers.1.attention.out", "layers.1.feed_forward.w1", "blocks.0.self_attn.q",
        "blocks.0.cross_attn.k", "blocks.0.ffn.0", "input_blocks.1.1.transformer_blocks.0.attn1.to_q",
        "input_blocks.1.1.transformer_blocks.0.ff.net.2", "input_blocks.1.0.in_layers.2", "final_layer.linear",
    ],
    (2, 2),
)  # fmt: skip


def test_presets_find_what_families_call_attention():
    """In the names of FLUX, Lumina 2, Wan and Stable Diffusion."""
    assert chosen_layers(LAYERS, TARGETS["attention"]) == [
        "double_blocks.0.img_attn.qkv", "single_blocks.3.linear1", "layers.1.attention.out", "blocks.0.self_attn.q",
        "blocks.0.cross_attn.k", "input_blocks.1.1.transformer_blocks.0.attn1.to_q",
    ]  # fmt: skip
    assert set(chosen_layers(LAYERS, TARGETS["attention+mlp"])) - set(chosen_layers(LAYERS, TARGETS["attention"])) == {
        "double_blocks.0.img_mlp.0", "layers.1.feed_forward.w1", "blocks.0.ffn.0",
        "input_blocks.1.1.transformer_blocks.0.ff.net.2",
    }  # fmt: skip
    assert set(LAYERS) - set(chosen_layers(LAYERS, TARGETS["all"])) == {"img_in", "final_layer.linear"}


def test_patterns_are_ends_or_whole_names():
    """Ends are whole parts of a name; what fits nothing is said with examples."""
    assert chosen_layers(LAYERS, ("qkv", "self_attn.q")) == ["double_blocks.0.img_attn.qkv", "blocks.0.self_attn.q"]
    assert chosen_layers(LAYERS, r"blocks\.\d\.ffn\.0") == ["blocks.0.ffn.0"]
    with pytest.raises(ValueError, match=r"pattern: no layer of this model fits \('kv',\); its layers are img_in, "):
        chosen_layers(LAYERS, ("kv",))
