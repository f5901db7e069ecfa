"""A batch too large for the memory: its loss in parts, with the gradient of the whole; and what to say of it.

Only the training forward, which needs most, is done in parts: items, noise, levels and rollouts are those of the whole
batch, so the update is the same up to the order in which numbers are added.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..diffusion.noisy_batch import NoisyBatch
from ..diffusion.share import Share
from .stream import Step, Stream

PER_ITEM = ("latents", "noise", "timestep", "teacher_forced", "x", "lengths", "source", "stride", "clean_output",
            "mask", "weight")  # fmt: skip
"""What a noisy batch has for each item."""


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or what it came from, is that of an allocator."""
    while error is not None:
        if isinstance(error, torch.OutOfMemoryError) or "not enough memory: you tried to allocate" in str(error):
            return True
        error = error.__cause__
    return False


def advice(loss: Stream, precision: str, accumulation: int, halves: bool) -> str:
    """Which widgets to change when the memory is too small, and what each saves."""
    data = next((part for part in loss.walk() if "batch_size" in part.inputs), None)
    tips = []
    if data is not None and data.inputs["batch_size"] > 1:
        size = data.inputs["batch_size"]
        tips.append(
            f"batch_size {size} -> {size // 2} in {data.title} with accumulation {accumulation} -> {2 * accumulation} "
            "in Optimizer Step (half of what a step needs beside the weights, the same result on average)"
        )
    if precision == "fp32":
        tips.append("precision bf16 in Optimizer Step (nearly half of what a step needs beside the weights)")
    tips.append("a smaller size or resolution of the data set (half the side: a quarter)")
    if not halves:
        tips.append("on_out_of_memory halve in Optimizer Step, which splits the batch by itself")
    return "; or ".join(tips[:3])


def can_be_split(inputs: Mapping[str, Any]) -> bool:
    """Whether a loss of these inputs can be had in parts: not where somebody goes on with the batch as a whole."""
    batches = [value for value in inputs.values() if isinstance(value, NoisyBatch)]
    return (
        len(batches) == 1
        and len(batches[0].latents) > 1
        and batches[0].listener is None
        and batches[0].fine is None
        and inputs.get("target_sampler") != "rollout"  # whose memory is of the whole batch
    )


def parts_of(batch: NoisyBatch, count: int) -> Iterator[NoisyBatch]:
    """The batch in so many parts, as even as can be."""
    for places in torch.arange(len(batch.latents)).tensor_split(count):
        chosen = slice(int(places[0]), int(places[-1]) + 1)
        values = {name: getattr(batch, name) for name in PER_ITEM}
        told = {name: value[chosen] for name, value in batch.conditioning.items()}
        kept: dict[str, Any] = {name: None if value is None else value[chosen] for name, value in values.items()}
        dealt = batch.dealt and Share(batch.dealt.places[chosen], batch.dealt.total)
        yield replace(batch, **kept, conditioning=told, memory=(), dealt=dealt)


def losses_in_parts(
    step: Step, loss: Stream, count: int, backward: Callable[[Tensor], None], total: Callable[[int], float]
) -> Tensor:
    """The losses (B,) of a batch in ``count`` parts; ``backward`` is given each part's share of the mean at once.

    ``total`` says of how many values the mean is, where the batch has so many.

    What the loss reports is the mean over the parts, by their sizes.
    """
    inputs = {name: step.value(value) for name, value in loss.inputs.items()}
    name, batch = next((name, value) for name, value in inputs.items() if isinstance(value, NoisyBatch))
    outer, found, reports = step.metrics, [], []
    whole = total(len(batch.latents))
    try:
        for part in parts_of(batch, count):
            step.metrics = {}
            losses = step.call(loss, {**inputs, name: part})
            backward(losses.sum() / whole)
            found.append(losses.detach())
            reports.append(step.metrics)
    finally:
        step.metrics = outer
    shares = [len(losses) / len(batch.latents) for losses in found]
    for each in dict.fromkeys(name for report in reports for name in report):
        having = [(share, report[each]) for share, report in zip(shares, reports, strict=True) if each in report]
        outer[each] = sum(share * value for share, value in having) / sum(share for share, _ in having)
    return torch.cat(found)
