"""The memory of a step, told before anything is loaded, is what the allocator then gives out."""

import json
from dataclasses import replace
from functools import partial
from itertools import accumulate

import pytest
import torch
from comfyui_rollout.diffusion.losses import elementwise, per_item
from comfyui_rollout.diffusion.solvers import ask
from comfyui_rollout.models.adapters.network import add_adapter
from comfyui_rollout.models.adapters.settings import AdapterSettings
from comfyui_rollout.models.adapters.text_encoders import TARGETS, attach_text_encoders, empty_text_encoders
from comfyui_rollout.models.families import PRETRAINED
from comfyui_rollout.models.loading.load import load_network
from comfyui_rollout.models.loading.pretrained import Pretrained
from comfyui_rollout.models.loading.recognise import inspect
from comfyui_rollout.models.loading.source import Source
from comfyui_rollout.models.loading.weight_count import count_in_folder
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


def one_step(model, config, plan, **more):
    kind = type(model)
    x = torch.randn(plan.batch, kind.latent_channels(config), plan.height, plan.width)
    told = {name: torch.zeros(value.shape) for name, value in told_like(kind, config, plan.batch).items()}
    told |= more
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


@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_text_encoders_that_are_trained_along_are_counted(tiny_pipeline, tmp_path, family):
    """Their weights, their adapters and what they keep of a caption, within 15%; none of their layers is squeezed."""
    source = Source(str(tiny_pipeline(family)), storage="fp32")
    wired = Pretrained(source, inspect(source))
    lora = AdapterSettings("new", rank=2, targets=("to_q", "to_v", *TARGETS))
    plan = StepPlan(
        8, 8, 2, (lora,), torch.float32, None, gradient_checkpointing=False,
        text_encoders=partial(empty_text_encoders, wired),
    )  # fmt: skip
    model = load_network(source, wired.info, "cpu")
    config = dict(model.network.config)
    attach_text_encoders(model, wired)
    add_adapter(model, lora, 0)
    model.prepare_training()
    there = sum(weight.nbytes for weight in model.network.parameters())
    length = model.text_encoders[0].config.max_position_embeddings
    tokens = torch.zeros(2, len(model.text_encoders), length, dtype=torch.long)
    told = step_memory(PRETRAINED[family], config, plan)
    assert told.weights == there
    measured = there + weighed(one_step(model, config, plan, tokens=tokens), tmp_path)
    assert told.total - told.remembered == pytest.approx(measured, rel=0.15)
    alone = step_memory(PRETRAINED[family], config, replace(plan, text_encoders=None))
    texts = sum(weight.nbytes for encoder in model.text_encoders for weight in encoder.parameters())
    assert told.weights - alone.weights == texts
    squeezed = [step_memory(PRETRAINED[family], config, replace(each, quantization="int8"))
                for each in (plan, replace(plan, text_encoders=None))]  # fmt: skip
    assert squeezed[0].weights - squeezed[1].weights == texts
    assert told.blocks == alone.blocks


def test_a_network_that_guides_counts_while_samples_are_drawn(tiny_pipeline):
    """As large as its file says, kept as the trained one; in place of what a step computes, never beside it."""
    folder, kind = tiny_pipeline("ideogram4"), PRETRAINED["ideogram4"]
    config, guide = (
        json.loads((folder / part / "config.json").read_text()) for part in ("transformer", kind.guide_part)
    )
    lora = AdapterSettings("new", rank=2, targets=kind.lora_targets["attention"])
    plain = step_memory(kind, config, StepPlan(8, 8, 1, (lora,)))
    told = step_memory(kind, config, StepPlan(8, 8, 1, (lora,), guide=guide))
    numbers = count_in_folder(folder / kind.guide_part)
    assert (plain.guide, told.guide) == (0, 2 * numbers)
    assert told.total - told.weights - told.remembered == max(told.activations, 2 * numbers)
    squeezed = step_memory(kind, config, StepPlan(8, 8, 1, (lora,), guide=guide, quantization="int8"))
    assert numbers < squeezed.guide < 2 * numbers


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
