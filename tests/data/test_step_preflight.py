"""What a step needs in memory, and what to change first, in words."""

import json
import re
from dataclasses import replace

import pytest
import torch
from comfyui_rollout.data import step_preflight
from comfyui_rollout.data.data import DatasetInfo, Group
from comfyui_rollout.data.step_preflight import changes, described, largest, step_in_words
from comfyui_rollout.models.adapters.settings import AdapterSettings
from comfyui_rollout.models.families import PRETRAINED
from comfyui_rollout.models.loading.pretrained import Pretrained
from comfyui_rollout.models.loading.recognise import inspect
from comfyui_rollout.models.loading.source import Source
from comfyui_rollout.models.step_memory import StepMemory, StepPlan, step_memory
from comfyui_rollout.training.optimizers import NAMES, REMEMBERED, OptimizerSettings
from comfyui_rollout.training.options import TrainingOptions

LORA = AdapterSettings("new", rank=2, targets=PRETRAINED["sd3"].lora_targets["attention"])
BF16 = TrainingOptions(precision="bf16")
GIGABYTE = 10**9


@pytest.fixture
def words(tiny_pipeline, monkeypatch):
    """``words(room, batch, **source)``: of a tiny Stable Diffusion 3, as if its size were worth a word."""
    monkeypatch.setattr(step_preflight, "WORTH_SAYING", 1)
    monkeypatch.setattr(step_preflight, "RESERVE", 0)

    def say(room, batch=1, adapters=(LORA,), **options):
        source = Source(str(tiny_pipeline("sd3")), **{"gradient_checkpointing": True, **options})
        (line,) = step_in_words(
            Pretrained(source, inspect(source)), adapters, (32, 32), batch, OptimizerSettings(), BF16, room
        )
        return line

    return say


def test_what_fits_and_what_does_not(words):
    """With all parts of the sum, what is there, and the one change that would do."""
    line = words(None, batch=2)
    assert re.match(
        r"a training step needs about \d+ \wB \(.* weights, .* of the optimizer, .* to compute\); 2 blocks", line
    )
    assert words(GIGABYTE).endswith("1.0 GB are here: fits")
    assert words(10_000).endswith(
        "does not fit, change first: the size of the images, and quantize and swap in Load Pretrained together"
    )


def test_the_first_change_that_does(words, tiny_pipeline):
    """The cheapest one: recomputing, then a smaller batch, then squeezed weights."""
    config = json.loads((tiny_pipeline("sd3") / "transformer" / "config.json").read_text())

    def room(batch, **options):
        return step_memory(PRETRAINED["sd3"], config, StepPlan(32, 32, batch, (LORA,), **options)).total

    assert words(room(4), 4, gradient_checkpointing=False).endswith(
        "first: gradient_checkpointing on in Load Pretrained"
    )
    assert words(room(1), 4).endswith("first: batch_size 1, with accumulation 4 in Optimizer Step")


def test_guided_samples_of_two_networks_may_need_more_than_a_step(monkeypatch):
    """Then the line is of them, and the first thing to change is the one that costs no training."""
    monkeypatch.setattr(step_preflight, "RESERVE", 0)
    memory = StepMemory(1000, 10, 100, 0, (100,) * 8, guide=1000)
    assert described(memory).startswith(
        "drawing guided samples needs about 2 kB (1 kB weights, 10 B of the optimizer, "
    )
    assert "or 1 kB of the network that guides" in described(memory)
    assert described(replace(memory, guide=99)).startswith("a training step needs about 1 kB (")
    plan = StepPlan(8, 8, 1, (LORA,), guide={"num_layers": 2})
    words, other = next(changes(plan, memory, 1500))
    assert words == "guidance 1 in Sample Prompts, which does without its second network"
    assert other == replace(plan, guide=None)


def test_so_many_blocks_are_swapped_as_it_takes(monkeypatch):
    """And no more: each makes a step slower."""
    monkeypatch.setattr(step_preflight, "RESERVE", 0)
    plan, memory = StepPlan(8, 8, 1, (LORA,)), StepMemory(1000, 0, 100, 0, (100,) * 8)
    swapped = {change: other.swap for change, other in changes(plan, memory, 900) if "swap" in change}
    assert swapped == {"swap 4 in Load Pretrained (of 8 blocks)": 4}


def test_what_helps_to_train_a_whole_model():
    """Swapping and squeezing do not: gradients that are let go, and then weights in two bytes."""
    plan, memory = StepPlan(8, 8, 1), StepMemory(1000, 0, 100, 0, (100,) * 8)
    said = dict(changes(plan, memory, 900))
    assert [(other.fused, other.trained) for other in said.values()] == [(True, torch.float32), (True, torch.bfloat16)]
    assert all("fused_backward in Optimizer Step, with clip_norm 0" in change for change in said)
    last = replace(plan, fused=True, trained=torch.bfloat16)
    assert [*changes(last, memory, 900)] == []


def test_gradients_that_are_let_go_are_not_counted(tiny_pipeline):
    """benchmarks/memory.py weighs the step itself; in bf16 weights are half as large."""
    config = json.loads((tiny_pipeline("sd3") / "transformer" / "config.json").read_text())
    kind, plan = PRETRAINED["sd3"], StepPlan(8, 8, 1)
    plain, fused, half = (
        step_memory(kind, config, each)
        for each in (plan, replace(plan, fused=True), replace(plan, fused=True, trained=torch.bfloat16))
    )
    assert fused.activations < plain.activations
    assert half.weights == fused.weights / 2


def test_small_networks_are_not_worth_a_word(tiny_pipeline):
    source = Source(str(tiny_pipeline("sd3")))
    about = Pretrained(source, inspect(source)), [LORA], (8, 8), 1
    assert step_in_words(*about, OptimizerSettings(), BF16, None) == []


def test_the_largest_bucket_counts():
    groups = tuple(Group(name, (0,), 1, 1.0) for name in ("512x768", "640x640", "cats 768x448"))
    assert largest(DatasetInfo("x", 3, 4, None, groups=groups), 8) == (80, 80)
    assert largest(DatasetInfo("x", 3, 4, 64), 8) == (64, 64)


@pytest.mark.parametrize("name", [name for name in NAMES if name in ("adamw", "sgd", "muon")])
def test_what_optimizers_keep(name):
    """The table is what they have after a step."""
    network = torch.nn.Linear(64, 64, bias=False)
    optimizers = OptimizerSettings(name=name).optimizers(network)
    network(torch.ones(1, 64)).sum().backward()
    for optimizer in optimizers:
        optimizer.step()
    kept = sum(
        value.nbytes
        for one in optimizers
        for state in one.state.values()
        for value in state.values()
        if torch.is_tensor(value) and value.ndim
    )
    assert kept == REMEMBERED[name] * network.weight.numel()
    assert REMEMBERED.keys() == {*NAMES}
    json.dumps(REMEMBERED)
