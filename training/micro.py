"""A batch too large for the memory: its loss in parts, with the gradient of the whole; and what to say of it.

Only the training forward, which needs most, is done in parts: items, noise, levels and rollouts are those of the whole
batch, so the update is the same up to the order in which numbers are added. Persistent rollouts hear of all parts when
the last one is done, and go on as they would have.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..diffusion.noisy_batch import Listener, Memory, NoisyBatch
from ..diffusion.share import Share
from ..hosts.processes import OutOfMemoryElsewhere
from .numbers import joined
from .options import TrainingOptions
from .sharing import mean_over
from .stream import Step, StepError, Stream

log = logging.getLogger(__name__)


def causes_of(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and what it came from."""
    while error is not None:
        yield error
        error = error.__cause__


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or what it came from, is that of an allocator."""
    words = "not enough memory: you tried to allocate"
    return any(isinstance(one, torch.OutOfMemoryError) or words in str(one) for one in causes_of(error))


def advice(loss: Stream, options: TrainingOptions, halves: bool) -> str:
    """Which widgets to change when the memory is too small, and what each saves."""
    data, tips = loss.data(), []
    if data is not None and data.inputs["batch_size"] > 1:
        size, accumulation = data.inputs["batch_size"], options.accumulation
        tips.append(
            f"batch_size {size} -> {size // 2} in {data.title} with accumulation {accumulation} -> {2 * accumulation} "
            "in Optimizer Step (half of what a step needs beside the weights, the same result on average)"
        )
    if options.precision == "fp32":
        tips.append("precision bf16 in Optimizer Step (nearly half of what a step needs beside the weights)")
    tips.append("a smaller size or resolution of the data set (half the side: a quarter)")
    if not halves:
        tips.append("on_out_of_memory halve in Optimizer Step, which splits the batch by itself")
    return "; ".join(tips[:3])


@dataclass
class MicroBatches:
    """Computes the loss of a batch: at once, and from the moment on that the memory is too small for that, in parts."""

    loss: Stream
    options: TrainingOptions
    count: int = 1
    """The number of parts; doubled whenever the memory was too small."""

    def losses(self, step: Step, backward: Callable[[Tensor], None]) -> Tensor:
        """The losses (B,) of a batch; ``backward`` is given their mean, or each part's share of it at once."""
        if self.count > 1:
            return losses_in_parts(step, self.loss, self.count, backward)
        losses: Tensor = step.value(self.loss)
        backward(mean_over(step.run.processes, losses))
        return losses

    def shrink(self, error: Exception, step: Step) -> None:
        """Go on in smaller parts after an out-of-memory ``error``, and let go of all memory of the failed attempt.

        Raises any other error again; raises StepError, saying what to change, where parts can get no smaller, or shall
        not (``on_out_of_memory`` stop).
        """
        if not is_out_of_memory(error):
            raise error
        processes = step.run.processes
        # With FSDP, forwards in parts would be unequal in number.
        halves = self.options.on_out_of_memory == "halve" and not processes.shards
        if halves and not any(isinstance(one, OutOfMemoryElsewhere) for one in causes_of(error)):
            processes.tell_out_of_memory()
        where = str(error).partition(":")[0] if isinstance(error, StepError) else f"step {step.update}, backward"
        if halves:
            let_go(error, step.run.device)
        size = processes.least(batch_size(step, self.loss)) if halves else 0
        if self.count >= size:
            tips = advice(self.loss, self.options, halves)
            words = f"{where}: the device's memory is too small for this step. Change one of these: {tips}"
            raise StepError(words) from error
        self.count = min(2 * self.count, size)
        log.warning(
            "step %d: out of memory; from now on the loss of a batch is computed in %d parts", step.update, self.count
        )


def let_go(error: Exception, device: torch.device) -> None:
    """Free the memory of an attempt that has failed with this error."""
    error.__traceback__ = error.__cause__ = error.__context__ = None  # they hold the tensors of what failed
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def batch_size(step: Step, loss: Stream) -> int:
    """How many items a loss's batch has; 0 where its loss cannot be computed in parts.

    So it is where the loss is not of exactly one batch, and where the memory is too small for the batch itself, all of
    which is rolled out at once.
    """
    try:
        inputs = [step.value(value) for value in loss.inputs.values()]
    except StepError as error:
        if not is_out_of_memory(error):
            raise
        return 0
    sizes = [len(value.latents) for value in inputs if isinstance(value, NoisyBatch)]
    return sizes[0] if len(sizes) == 1 else 0


@dataclass
class Heard:
    """The listener of one part of a batch: keeps what it is told for the listener of the whole."""

    fine: Tensor | None = None
    output: Tensor | None = None

    def landed(self, fine: Tensor) -> None:
        self.fine = fine

    def answered(self, output: Tensor) -> None:
        self.output = output.detach() if self.output is None else self.output  # only the first answer counts


def tell(listener: Listener, heard: Sequence[Heard]) -> None:
    """Tell the listener of the whole batch what all parts have heard, as if it had been computed at once."""
    fine = [part.fine for part in heard if part.fine is not None]
    output = [part.output for part in heard if part.output is not None]
    if len(fine) == len(heard):
        listener.landed(torch.cat(fine))
    if len(output) == len(heard):
        listener.answered(torch.cat(output))


def parts_of(batch: NoisyBatch, count: int) -> Iterator[NoisyBatch]:
    """The batch in so many parts, as even as can be, or one an item where there are fewer.

    Each has a :class:`Heard` of its own where somebody listens.
    """
    size = len(batch.latents)
    for places in torch.arange(size).tensor_split(min(count, size)):
        chosen = slice(int(places[0]), int(places[-1]) + 1)
        fine = None if batch.fine is None or chosen.start >= len(batch.fine) else batch.fine[chosen]
        yield replace(
            batch.items(chosen),
            fine=fine,
            memory=tuple(memory_of(batch.memory, chosen)),
            listener=None if batch.listener is None else Heard(),
            dealt=Share(batch.share.places[chosen], batch.share.total),
        )


def memory_of(memory: Sequence[Memory], chosen: slice) -> Iterator[Memory]:
    """The solver's memory of the items in this slice of the batch, with places counted within the slice."""
    for part in memory:
        there = ((part.places >= chosen.start) & (part.places < chosen.stop)).nonzero().flatten()
        if len(there):
            yield Memory(part.places[there] - chosen.start, part.history.items(there))


def losses_in_parts(step: Step, loss: Stream, count: int, backward: Callable[[Tensor], None]) -> Tensor:
    """The losses (B,) of a batch in ``count`` parts; ``backward`` is given each part's share of the mean at once.

    What the loss reports is that of the whole batch.
    """
    inputs = {name: step.value(value) for name, value in loss.inputs.items()}
    name, batch = next((name, value) for name, value in inputs.items() if isinstance(value, NoisyBatch))
    outer, found, reports, heard = step.numbers, [], [], []
    whole = step.run.processes.total(len(batch.latents))
    try:
        for part in parts_of(batch, count):
            step.numbers = {}
            step.forget(loss)  # each part draws for the whole batch, and takes its own
            losses = step.call(loss, {**inputs, name: part})
            backward(losses.sum() / whole)
            found.append(losses.detach())
            reports.append(step.numbers)
            heard.append(part.listener)
    finally:
        step.numbers = outer
    if batch.listener is not None:
        tell(batch.listener, [part for part in heard if isinstance(part, Heard)])
    for each, number in joined(reports).items():
        step.report(each, *number)
    return torch.cat(found)
