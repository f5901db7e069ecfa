"""What a training step needs in memory, in words, before gigabytes are loaded; and what to change first."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial

import torch

from ..files.whole import read_object
from ..models.adapters.settings import AdapterSettings
from ..models.adapters.text_encoders import empty_text_encoders
from ..models.loading.hub import local_folder
from ..models.loading.pretrained import Pretrained
from ..models.loading.source import DTYPES
from ..models.loading.weight_count import in_words
from ..models.step_memory import StepMemory, StepPlan, step_memory
from ..training.optimizers import REMEMBERED, OptimizerSettings
from ..training.options import TrainingOptions
from .data import DatasetInfo

RESERVE = 1 << 30
"""Of a GPU's memory what its driver, libraries and the gaps between tensors take."""
WORTH_SAYING = 100_000_000
"""Weights of a network from which on it is worth finding out."""


def step_in_words(
    pretrained: Pretrained,
    adapters: Iterable[AdapterSettings],
    size: tuple[int, int],
    batch: int,
    optimizer: OptimizerSettings,
    options: TrainingOptions,
    room: int | None,
    *,
    reads_anew: bool = False,
    guided: bool = False,
) -> list[str]:
    """What a step needs, and whether that fits into ``room`` bytes; nothing for small networks, and those on the hub.

    ``size``: height and width of the :func:`largest` latents. ``reads_anew``: text encoders are trained along;
    ``guided``: samples are drawn with guidance.
    """
    kind, source = pretrained.info.kind, pretrained.source
    if pretrained.weights().get(kind.network_part, 0) < WORTH_SAYING:
        return []
    home = local_folder(source.home)
    config = read_object(home / kind.network_part / "config.json")
    plan = StepPlan(
        *size,
        batch,
        tuple(adapters),
        storage=DTYPES[source.storage],
        autocast=DTYPES[options.precision] if options.precision != "fp32" else None,
        quantization=source.quantization,
        gradient_checkpointing=source.gradient_checkpointing,
        swap=source.swap,
        remembered=REMEMBERED[optimizer.name] + 4 * (options.ema_decay > 0),
        trained=DTYPES[options.weights_dtype],
        fused=options.fused_backward,
        text_encoders=partial(empty_text_encoders, pretrained) if reads_anew else None,
        guide=read_object(home / kind.guide_part / "config.json") if guided and kind.guide_part else None,
    )
    memory = step_memory(kind, config, plan)
    if room is None:
        return [described(memory)]
    if fits(memory, room):
        return [f"{described(memory)}; {in_words(room, 'B')} are here: fits"]
    change = next(
        (words for words, other in changes(plan, memory, room) if fits(step_memory(kind, config, other), room)),
        "the size of the images, and quantize and swap in Load Pretrained together",
    )
    return [f"{described(memory)}; {in_words(room, 'B')} are here: does not fit, change first: {change}"]


def described(memory: StepMemory) -> str:
    parts = f"{in_words(memory.weights, 'B')} weights, {in_words(memory.remembered, 'B')} of the optimizer, "
    parts += f"{in_words(memory.activations, 'B')} to compute"
    if memory.swapped:
        parts += f", less {in_words(memory.away(memory.swapped), 'B')} of {memory.swapped} swapped blocks"
    blocks = f"; {len(memory.blocks)} blocks could be swapped" if memory.blocks and not memory.swapped else ""
    if memory.guide > memory.activations:
        return (
            f"drawing guided samples needs about {in_words(memory.total, 'B')} ({parts}, or "
            f"{in_words(memory.guide, 'B')} of the network that guides){blocks}"
        )
    return f"a training step needs about {in_words(memory.total, 'B')} ({parts}){blocks}"


def fits(memory: StepMemory, room: int) -> bool:
    return memory.total + RESERVE <= room


def changes(plan: StepPlan, memory: StepMemory, room: int) -> Iterator[tuple[str, StepPlan]]:
    """What may help, what costs least first; each by itself."""
    if plan.guide:
        yield "guidance 1 in Sample Prompts, which does without its second network", replace(plan, guide=None)
    if not plan.gradient_checkpointing:
        yield "gradient_checkpointing on in Load Pretrained", replace(plan, gradient_checkpointing=True)
    if plan.batch > 1:
        yield f"batch_size 1, with accumulation {plan.batch} in Optimizer Step", replace(plan, batch=1)
    if not plan.adapters:
        if not plan.fused:
            yield "fused_backward in Optimizer Step, with clip_norm 0", replace(plan, fused=True)
        if plan.trained == torch.float32:
            change = replace(plan, trained=torch.bfloat16, autocast=torch.bfloat16, fused=True)
            yield "weights_dtype bf16, precision bf16 and fused_backward in Optimizer Step, with clip_norm 0", change
        return
    over = memory.total + memory.away(memory.swapped) + RESERVE - room
    counts = range(plan.swap + 1, len(memory.blocks) + 1)
    swap = next((count for count in counts if memory.away(count) >= over), 0)
    if swap and plan.quantization != "nf4":
        change = replace(plan, swap=swap, gradient_checkpointing=True)
        yield f"swap {swap} in Load Pretrained (of {len(memory.blocks)} blocks)", change
    if plan.quantization == "none":
        change = replace(plan, quantization="int8", gradient_checkpointing=True)
        yield "quantize int8 in Load Pretrained", change


def largest(data: DatasetInfo, factor: int) -> tuple[int, int]:
    """Height and width of the largest latents of a data set, whose groups are named by their pixels.

    ``factor``: how many pixels a latent is high and wide.
    """
    if data.size:
        return data.size, data.size
    sizes = [tuple(map(int, found)) for group in data.groups for found in re.findall(r"(\d+)x(\d+)$", group.name)]
    height, width = max(sizes, key=lambda size: size[0] * size[1])
    return height // factor, width // factor
