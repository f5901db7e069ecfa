"""The memory of a step, told before anything is loaded, is what the allocator then gives out."""

import json
from itertools import accumulate

import pytest
import torch
from comfyui_rollout.diffusion.losses import elementwise, per_item
from comfyui_rollout.diffusion.solvers import ask
from comfyui_rollout.models.adapters.settings import AdapterSettings
from comfyui_rollout.models.families import PRETRAINED
from comfyui_rollout.models.step_memory import (
    StepMemory,
    StepPlan,
    alike,
    frozen_bytes,
    step_memory,
    told_like,
    with_adapters,
)

LORA = (AdapterSettings("new", rank=4, targets=PRETRAINED["sd3"].lora_targets["attention"]),)


def weighed(work, tmp_path):
    """The most bytes that ``work`` holds at once, as torch's profiler hears of them from the allocator."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        work()
    profile.export_chrome_trace(str(tmp_path / "trace.json"))
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    changes = sorted((event for event in events if event.get("name") == "[memory]"), key=lambda event: event["ts"])
    return max(accumulate(event["args"]["Bytes"] for event in changes))


def one_step(model, config, plan):
    kind = type(model)
    x = torch.randn(plan.batch, kind.latent_channels(config), plan.height, plan.width)
    told = {name: torch.zeros(value.shape) for name, value in told_like(kind, config, plan.batch).items()}
    level = torch.full((plan.batch,), 500.0, dtype=torch.float64)

    def work():
        with torch.autocast("cpu", torch.bfloat16, enabled=plan.autocast is not None, cache_enabled=False):
            loss = per_item(elementwise(ask(model, x, level, told), x)).mean()
        loss.backward()

    return work


PLANS = [
    StepPlan(32, 32, 2, LORA),
    StepPlan(32, 16, 3, LORA, torch.float32, None, gradient_checkpointing=False),
    StepPlan(32, 32, 1, (), torch.float32, None),
]


@pytest.mark.parametrize("plan", PLANS, ids=["lora in bf16", "all kept", "all trained"])
def test_the_estimate_is_what_is_measured(tiny_pipelines, tmp_path, plan):
    """Within 15%; of five equal blocks it goes through two and a third one."""
    network = tiny_pipelines.sd3_network(
        num_layers=6, attention_head_dim=32, num_attention_heads=4, caption_projection_dim=128, joint_attention_dim=64
    ).to(plan.storage)
    assert alike(network) == {"transformer_blocks": 5}  # the last one is another
    model, config = with_adapters(PRETRAINED["sd3"], network, plan), dict(network.config)
    there = sum(weight.nbytes for weight in network.parameters())
    measured = there + weighed(one_step(model, config, plan), tmp_path)
    told = step_memory(PRETRAINED["sd3"], config, plan)
    assert told.total - told.remembered == pytest.approx(measured, rel=0.15)
    assert told.remembered == 8 * sum(weight.numel() for weight in model.trained.values())


@pytest.mark.parametrize("family", sorted(PRETRAINED))
def test_every_family_is_gone_through(tiny_pipeline, family):
    """Its own code runs on what it is told, and it has blocks that can be swapped."""
    kind = PRETRAINED[family]
    config = json.loads((tiny_pipeline(family) / kind.network_part / "config.json").read_text())
    lora = AdapterSettings("new", rank=2, targets=kind.lora_targets["attention"])
    told = step_memory(kind, config, StepPlan(8, 8, 1, (lora,)))
    assert told.blocks
    assert 0 < told.remembered < told.weights < told.total


def test_swapped_and_squeezed_weights_take_less(tiny_pipelines):
    """But for room for two of the largest blocks, and one block's weights as they compute."""
    told = StepMemory(1000, 10, 100, 4, (100, 300, 200, 400))
    assert told.total == 1000 + 10 + 100 - 200
    assert told.away(1) == told.away(0) == 0
    network = tiny_pipelines.sd3_network().requires_grad_(False)
    plans = [StepPlan(8, 8, storage=torch.float32, quantization=kind) for kind in ("none", "int8")]
    whole, squeezed = (frozen_bytes(network, plan) for plan in plans)
    linear = sum(layer.weight.nbytes for layer in network.modules() if isinstance(layer, torch.nn.Linear))
    assert squeezed == whole - 0.75 * linear
