"""What a rollout costs in memory: a whole LoRA training step with and without one, the optimizer included.

Activations make up a step's peak, and a rollout's forwards keep none, so its own peak lies below that of the training
forward and backward. What lasts beside them are a few latents. Bounds, with gradient checkpointing off and on:
(a) a rollout alone: no more than one forward of the whole batch without gradient, and 10% for its latents
(b) a step with rollouts, also with ReflexFlow, over the larger of the plain step and one such forward: at most 1.02
(c) a step with persistent rollouts over that, their own latents (what the solver remembers included) and those of the
    batch in which they sit: at most 1.02
(d) a checkpointed step with rollouts and half of the blocks swapped, over the same step with all blocks on the device,
    less the bytes of those blocks but for two: at most 1, weights included, with the very same losses
(e) a checkpointed step that trains all weights, with fused backward, over the same step without, less the bytes of all
    gradients but for the two largest: at most 1.05, weights and optimizer included, with the very same losses
(f) the same with weights in bf16, over (e)'s less half of the weights, and a large one's in float32: at most 1.02
(g) a plain step whose activations wait in main memory, over one that keeps them: at most 0.25, and 0.95 with
    checkpointing, which leaves little to wait; with the very same losses

All other figures are above what is there between two steps (weights, optimizer, cached latents).

    python benchmarks/memory.py [--device cuda]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import accumulate, product
from pathlib import Path
from unittest.mock import patch

import torch
from comfyui_rollout.diffusion import losses, reflexflow, seeds
from comfyui_rollout.diffusion.chains import Keeper
from comfyui_rollout.diffusion.noisy_batch import predict
from comfyui_rollout.diffusion.rollout import NoisyBatch, RolloutPlan, noisy_batch, roll_out
from comfyui_rollout.diffusion.schedules import FlowMatching
from comfyui_rollout.diffusion.solvers import ask, solver
from comfyui_rollout.models.adapters.network import add_adapter
from comfyui_rollout.models.adapters.settings import AdapterSettings
from comfyui_rollout.models.families import PRETRAINED, PretrainedModel
from comfyui_rollout.models.swapping import Swap
from comfyui_rollout.training.forward import training_mode
from comfyui_rollout.training.loop import Trainer, prepare
from comfyui_rollout.training.optimizers import OptimizerSettings
from comfyui_rollout.training.stream import Run, Step, Stream
from report import conclude, table

BATCH, CHANNELS, SIZE, WORDS = 4, 4, 32, 32
SCHEDULE, SOLVER = FlowMatching(), solver("unipc")
PLAN = RolloutPlan(max_step_offset=5, probability=1.0, step_size=20.0)
CHAINS = RolloutPlan(max_step_offset=5, probability=0.5, step_size=100.0, rollout="persistent")
MEGABYTE = 2**20


def new_model(step: Step, checkpointing: bool, layers: int = 4, swap: int = 0) -> PretrainedModel:
    """Stable Diffusion 3 with random weights and two million parameters, 256 tokens an image, and a LoRA."""
    return step.keep(lambda: with_lora(checkpointing, layers, swap, step.run.device))


def with_lora(checkpointing: bool, layers: int, swap: int, device: torch.device, rank: int = 16) -> PretrainedModel:
    """Without a LoRA where its rank is 0."""
    from diffusers import SD3Transformer2DModel

    family = PRETRAINED["sd3"]
    with seeds.global_seed(0):
        network = SD3Transformer2DModel(
            sample_size=SIZE, in_channels=CHANNELS, out_channels=CHANNELS, num_layers=layers, attention_head_dim=32,
            num_attention_heads=4, caption_projection_dim=128, joint_attention_dim=64, pooled_projection_dim=64,
            pos_embed_max_size=SIZE,
        )  # fmt: skip
    if checkpointing:
        network.enable_gradient_checkpointing()
    model = family(network)
    if swap:
        model.swap = Swap(network, swap, device)
    model.to(device)
    if rank:
        add_adapter(model, AdapterSettings("lora", rank=rank, targets=family.lora_targets["attention"]), seed=0)
    return model


def noised(step: Step) -> NoisyBatch:
    """Latents and text, drawn on the CPU, as a cached data set gives them."""
    random, shape = step.generator(), (BATCH, CHANNELS, SIZE, SIZE)
    latents, noise = (torch.randn(shape, generator=random).to(step.run.device) for _ in range(2))
    text = {"text": torch.randn(BATCH, WORDS, 64, generator=random), "pooled": torch.randn(BATCH, 64, generator=random)}
    told = {name: value.to(step.run.device) for name, value in text.items()}
    return noisy_batch(latents, noise, SCHEDULE.sample_timesteps(BATCH, random), SCHEDULE, told)


def rolled_out(step: Step, model: PretrainedModel, batch: NoisyBatch, reflex: bool) -> NoisyBatch:
    draw = PLAN.draw(batch.timestep, SCHEDULE, step.update, step.generator())
    with model.evaluating():
        return roll_out(model, batch, draw, SOLVER, want_clean_output=reflex)


def chained(step: Step, model: PretrainedModel, batch: NoisyBatch, reflex: bool) -> NoisyBatch:
    """Persistent rollouts in place of half of the items; the loss's own forward moves them on."""
    return step.keep(Keeper).seat(batch, model, CHAINS, SOLVER, step.update, step.generator())


def chain_size() -> float:
    """Megabytes of the chains (latents, noise, two states, what the solver remembers) and of the batch with them."""
    chains, seated = CHAINS.probability * BATCH * (4 + 1 + SOLVER.remembers), 4 * BATCH
    return (chains + seated) * CHANNELS * SIZE * SIZE * 4 / MEGABYTE


def loss_of(step: Step, model: PretrainedModel, batch: NoisyBatch, reflex: bool) -> torch.Tensor:
    output, wanted = predict(model, batch), losses.target(batch)
    if reflex:
        return reflexflow.spec(output, wanted, batch)[0]
    return losses.per_item(losses.elementwise(output, wanted))


def trainer(
    device: torch.device,
    checkpointing: bool,
    rollout: Callable[..., NoisyBatch] | None,
    reflex: bool = False,
    **network: int,
) -> Trainer:
    """The training step as a graph; its first update, which makes the optimizer's state, is done."""
    model = Stream(new_model, {"checkpointing": checkpointing, **network}, "model")
    batch = Stream(noised, node_id="batch")
    if rollout:
        batch = Stream(rollout, {"model": model, "batch": batch, "reflex": reflex}, "rollout")
    loss = Stream(loss_of, {"model": model, "batch": batch, "reflex": reflex}, "loss")
    made = prepare(loss, model, OptimizerSettings(), steps=3, run=Run(loss, device=device))
    next(made.updates())
    return made


def peak(device: torch.device, work: Callable[[], object]) -> int:
    """The most bytes that ``work`` holds at once, above what is there when it begins."""
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        work()
        return torch.cuda.max_memory_allocated(device) - before
    return peak_on_cpu(work)


def peak_on_cpu(work: Callable[[], object]) -> int:
    """As torch's profiler hears of it from the allocator: every byte, those inside of operations too."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        work()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profile.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    changes = sorted((event for event in events if event.get("name") == "[memory]"), key=lambda event: event["ts"])
    return max(accumulate(event["args"]["Bytes"] for event in changes), default=0)


def check_the_scales() -> None:
    """A known load is weighed to the byte; raises RuntimeError otherwise."""
    there = torch.empty(10_000)

    def known() -> None:
        first, second = torch.empty(1000), torch.empty(2000)
        del first  # 8000 bytes stay
        third = torch.empty(1500)  # 14000 at once
        del second, third
        torch.empty(3000).add_(there[:3000])

    if (weighed := peak_on_cpu(known)) != 14_000:
        raise RuntimeError(f"14000 bytes were weighed as {weighed}")


def peaks(device: torch.device, checkpointing: bool) -> dict[str, float]:
    """Megabytes of each kind of step, of a rollout by itself, and of one forward without gradient."""
    found: dict[str, float] = {}
    kinds = {"plain": (None,), "rollout": (rolled_out,), "reflexflow": (rolled_out, True), "persistent": (chained,)}
    for name, options in kinds.items():
        found[name] = peak(device, partial(next, trainer(device, checkpointing, *options).updates()))
    made = trainer(device, checkpointing, rolled_out)
    inputs = next(stream for stream in made.loss.walk() if stream.node_id == "rollout").inputs
    step = Step(made.run, 1)
    with training_mode():
        model, batch = step.value(inputs["model"]), step.value(inputs["batch"])
        found["rollout alone"] = peak(device, lambda: rolled_out(step, model, batch, reflex=False))
        found["forward"] = peak(device, lambda: forward(model, batch))
    return {name: size / MEGABYTE for name, size in found.items()}


def swapping(device: torch.device) -> dict[str, float]:
    """Megabytes on the device in a step with rollouts, with all of eight blocks there and with four of them swapped.

    On a CPU, where both memories are one, what waits is taken off.
    """
    found, losses = {}, {}
    for name, swap in (("all there", 0), ("half swapped", 4)):
        made = trainer(device, True, rolled_out, layers=8, swap=swap)
        model, steps = made.run.value(made.loss.inputs["model"]), []
        there = sum(part.nbytes for part in [*model.network.parameters(), *model.network.buffers()])
        moments = [each for state in made.optimizers[0].state.values() for each in state.values()]
        there += sum(each.nbytes for each in moments)
        if model.swap:
            there += sum(place.nbytes for place in model.swap.places) - model.swap.size
            found["blocks that wait, but for two"] = model.swap.size - 2 * model.swap.blocks[0].size
        found[name] = there + peak(device, lambda made=made, steps=steps: steps.append(next(made.updates())))
        losses[name] = steps[0].metrics["loss"]
    if not torch.equal(*losses.values()):
        raise RuntimeError(f"the losses are not the same: {losses}")
    return {name: size / MEGABYTE for name, size in found.items()}


def whole_model(step: Step) -> PretrainedModel:
    """The same network with more layers, of which all weights are trained."""
    return step.keep(lambda: with_lora(True, 16, 0, step.run.device, rank=0))


def fine_tuning(device: torch.device) -> tuple[dict[str, float], dict[str, float]]:
    """Megabytes in a step that trains all weights, plain, fused and in bf16; and these over what they should be."""
    kinds: dict[str, dict[str, object]] = {
        "all gradients at once": {"precision": "bf16"},
        "fused": {"precision": "bf16", "fused_backward": True},
        "fused, in bf16": {"precision": "bf16", "fused_backward": True, "weights_dtype": "bf16"},
    }
    found, losses, sizes = {}, {}, []
    for name, options in kinds.items():
        model, batch = Stream(whole_model, node_id="model"), Stream(noised, node_id="batch")
        loss = Stream(loss_of, {"model": model, "batch": batch, "reflex": False}, "loss")
        run = Run(loss, device=device)
        made, steps = prepare(loss, model, OptimizerSettings(), steps=3, run=run, clip_norm=0.0, **options), []
        next(made.updates())
        there = sum(weight.nbytes for weight in made.parameters)
        there += sum(each.nbytes for state in made.optimizers[0].state.values() for each in state.values())
        found[name] = there + peak(device, lambda made=made, steps=steps: steps.append(next(made.updates())))
        losses[name] = steps[0].metrics["loss"]
        sizes = sorted(4 * weight.numel() for weight in made.parameters)
    if not torch.equal(losses["all gradients at once"], losses["fused"]):
        raise RuntimeError(f"the losses are not the same: {losses}")
    should = found["all gradients at once"] - sum(sizes[:-2])
    half = found["fused"] - sum(sizes) / 2 + 3 * sizes[-1]
    figures = {"fused_backward": found["fused"] / should, "bf16_weights": found["fused, in bf16"] / half}
    return {name: size / MEGABYTE for name, size in found.items()}, figures


class Elsewhere:
    """Main memory, for a CPU, whose own is the device's here: what it keeps is numpy's, and not weighed."""

    def __init__(self, pin_memory: bool = False) -> None:
        self.pack_hook, self.unpack_hook = (lambda tensor: tensor.detach().numpy().copy()), torch.tensor


def offloading(device: torch.device) -> dict[str, float]:
    """Megabytes of a plain LoRA step, with what the backward pass needs on the device, and in main memory."""
    main_memory = torch.autograd.graph.save_on_cpu if device.type == "cuda" else Elsewhere
    found, losses = {}, []
    for checkpointing, offload in product((False, True), (False, True)):
        with patch("torch.autograd.graph.save_on_cpu", main_memory):
            made, steps = trainer(device, checkpointing, None), []
            made.options = replace(made.options, offload_activations=offload)
            name = f"{'waiting' if offload else 'kept'}{', checkpointed' if checkpointing else ''}"
            found[name] = peak(device, lambda made=made, steps=steps: steps.append(next(made.updates()))) / MEGABYTE
            losses.append(steps[0].metrics["loss"])
    if not all(torch.equal(losses[0], loss) for loss in losses):
        raise RuntimeError(f"the losses are not the same: {losses}")
    return found


@torch.no_grad()
def forward(model: PretrainedModel, batch: NoisyBatch) -> None:
    """The whole batch once, without gradient."""
    with model.evaluating():
        ask(model, batch.x, batch.timestep, batch.conditioning)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(parser.parse_args().device)
    check_the_scales()
    rows, figures = [], {}
    for checkpointing in (False, True):
        found = peaks(device, checkpointing)
        rows.append(["on" if checkpointing else "off", *found.values()])
        allowed = max(found["plain"], found["forward"])
        kind = "_checkpointed" if checkpointing else ""
        figures[f"rollout_in_forwards{kind}"] = found["rollout alone"] / found["forward"]
        figures[f"step_with_rollouts{kind}"] = found["rollout"] / allowed
        figures[f"step_with_reflexflow{kind}"] = found["reflexflow"] / allowed
        figures[f"step_with_persistent_rollouts{kind}"] = found["persistent"] / (allowed + chain_size())
    table(["checkpointing", *(f"{name}, MB" for name in found)], rows)
    swapped = swapping(device)
    table([f"{name}, MB" for name in swapped], [[*swapped.values()]])
    tuned, ratios = fine_tuning(device)
    table([f"{name}, MB" for name in tuned], [[*tuned.values()]])
    figures |= ratios
    waiting = offloading(device)
    table([f"{name}, MB" for name in waiting], [[*waiting.values()]])
    figures["offloaded"] = waiting["waiting"] / waiting["kept"]
    figures["offloaded_checkpointed"] = waiting["waiting, checkpointed"] / waiting["kept, checkpointed"]
    waits = swapped["blocks that wait, but for two"]
    figures["half_swapped"] = swapped["half swapped"] / (swapped["all there"] - waits)
    bounds = {name: 1.10 if name.startswith("rollout") else 1.02 for name in figures} | {
        "half_swapped": 1.0,
        "fused_backward": 1.05,
        "offloaded": 0.25,
        "offloaded_checkpointed": 0.95,
    }
    return conclude(figures, at_most=bounds, at_least={})


if __name__ == "__main__":
    sys.exit(main())
