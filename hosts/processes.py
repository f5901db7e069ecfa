"""The processes that train together: one, or as many as ``accelerate launch`` or ``torchrun`` has started.

All of them run the same program on the same workflow. What must be the same for all is agreed on here, over a group of
the CPU's own, so that nothing waits for a device: whether to stop, what the clock says, who ran out of memory.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor

from .interrupted import Interrupted
from .watch import OtherProcessFailed, Watch

Value = TypeVar("Value")

BUCKET = 32 << 20
"""Bytes of gradients that are added up at once."""
PATIENCE = timedelta(days=1)
"""Others may wait while the first process draws samples or encodes; who fails is noticed by the watch, not by this."""


class OutOfMemoryElsewhere(torch.OutOfMemoryError):
    """Another process has too little memory for its part of the batch: all compute theirs in smaller parts."""


class Processes:
    """One process by itself, with nobody to agree with."""

    rank = 0
    count = 1
    left = False
    """Whether something has failed, so that nothing is agreed on any more."""
    shards = False
    """Whether each process holds a part of the weights only (FSDP)."""
    accelerator: Any = None
    """Accelerate's, where there are several."""
    is_cause = True
    """Whether what failed, if something did, failed here."""

    @property
    def leads(self) -> bool:
        """Whether this process writes and shows what all have done."""
        return self.rank == 0

    def device(self, name: str) -> str:
        """The device of this process, where ``name`` is that of the run."""
        return name

    def settle(self) -> None:
        """Called before anything is exchanged: where weights are held in parts, forwards of others may be owed."""

    def total(self, value: float) -> float:
        """The sum of everybody's value. Raises OutOfMemoryElsewhere where another process said so instead."""
        return value

    def tell_out_of_memory(self) -> None:
        """Say so in place of what the others ask for next, which is a :meth:`total`."""

    def least(self, value: int) -> int:
        return value

    def any(self, flag: bool) -> bool:
        """Whether it is so for any of them."""
        return flag

    def gathered(self, value: Value) -> list[Value]:
        """Everybody's value, by rank."""
        return [value]

    def gathered_in_step(self, value: Value) -> list[Value]:
        """The same within an update, where another process may be out of memory: raises OutOfMemoryElsewhere then."""
        self.total(0)
        return self.gathered(value)

    def from_lead(self, value: Value) -> Value:
        """The first process's value, for all."""
        return value

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Put the sum over all processes into each tensor; they are on the device, and it does not wait for them."""

    @contextmanager
    def one_first(self) -> Iterator[None]:
        """Inside is one process of each machine first, and the others when it is done: they find what it has made."""
        yield

    @contextmanager
    def watched(self, note: Callable[[str], None]) -> Iterator[None]:
        """If one fails inside, all end within seconds; ``note`` is told why where this process cannot say it itself."""
        yield

    def leave(self, error: BaseException) -> BaseException:
        """From now on nothing is agreed on. Returns what to raise: the error, or what made it fail elsewhere."""
        return error

    @contextmanager
    def ending(self) -> Iterator[None]:
        """What is raised inside is told to all; what comes of another process's failure is that failure."""
        try:
            yield
        except BaseException as error:
            cause = self.leave(error)
            if cause is error:
                raise
            raise cause from error

    def decided(self, flag: bool) -> bool:
        """What the first process says, whose clock and whose disk count."""
        return self.any(flag and self.leads)

    def check(self, check: Callable[[], None]) -> None:
        """Raises, for all, what ``check`` raises in any process: Interrupted."""
        check()


class Together(Processes):
    """Several processes, joined by Accelerate."""

    def __init__(self, accelerator: Any) -> None:
        self.accelerator = accelerator
        self.shards = str(accelerator.distributed_type.value) == "FSDP"
        self.rank, self.count = accelerator.process_index, accelerator.num_processes
        self.group = torch.distributed.new_group(backend="gloo", timeout=PATIENCE)
        self.watch: Watch | None = None
        self.stopping = False

    @property
    def is_cause(self) -> bool:  # type: ignore[override]
        return self.watch is None or self.watch.is_cause

    def device(self, name: str) -> str:
        return str(self.accelerator.device) if name.partition(":")[0] == self.accelerator.device.type else name

    def _met(self, values: Sequence[float], how: Any) -> list[float]:
        if self.left:
            return list(values)
        self.settle()
        exchanged = torch.tensor(values, dtype=torch.float64)
        torch.distributed.all_reduce(exchanged, how, group=self.group)
        return exchanged.tolist()

    def total(self, value: float) -> float:
        trouble, total = self._met([0, value], torch.distributed.ReduceOp.SUM)
        if trouble:
            raise OutOfMemoryElsewhere("another process ran out of memory")
        return total

    def tell_out_of_memory(self) -> None:
        self._met([1, 0], torch.distributed.ReduceOp.SUM)

    def least(self, value: int) -> int:
        return int(self._met([value], torch.distributed.ReduceOp.MIN)[0])

    def any(self, flag: bool) -> bool:
        return bool(self._met([flag], torch.distributed.ReduceOp.MAX)[0])

    def gathered(self, value: Value) -> list[Value]:
        if self.left:
            return [value]
        self.settle()
        found: list[Any] = [None] * self.count
        torch.distributed.all_gather_object(found, value, group=self.group)
        return found

    def from_lead(self, value: Value) -> Value:
        if self.left:
            return value
        self.settle()
        box = [value]
        torch.distributed.broadcast_object_list(box, src=0, group=self.group)
        return box[0]

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        if self.left:
            return
        self.settle()
        for bucket in buckets(tensors):
            flat = torch.cat([tensor.flatten() for tensor in bucket])
            torch.distributed.all_reduce(flat)
            for tensor, summed in zip(bucket, flat.split([tensor.numel() for tensor in bucket]), strict=True):
                tensor.copy_(summed.view_as(tensor))

    @contextmanager
    def one_first(self) -> Iterator[None]:
        first = bool(self.accelerator.is_local_main_process)
        if not first:
            self.any(False)
        yield
        if first:
            self.any(False)

    @contextmanager
    def watched(self, note: Callable[[str], None]) -> Iterator[None]:
        self.watch = Watch(self.rank, self.count, self.from_lead(os.urandom(8).hex()), note)
        try:
            with self.watch:
                yield
                self.any(False)  # nobody stops watching before all are through
        finally:
            self.settle = lambda: None  # type: ignore[method-assign]

    def leave(self, error: BaseException) -> BaseException:
        if self.stopping and isinstance(error, Interrupted):
            return error  # all have agreed to stop, and go on together to their end
        self.left = True
        return error if self.watch is None else self.watch.cause_of(error)

    def check(self, check: Callable[[], None]) -> None:
        stop: BaseException | None = None
        try:
            check()
        except Exception:
            raise
        except BaseException as asked:  # the host's own kind of stop
            stop = asked
        if self.any(stop is not None):
            self.stopping = True
            raise stop or Interrupted("stopped by the user")


def buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Tensors of one dtype together, in their order, so that each bucket has about 32 MB."""
    kinds: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        kinds.setdefault(tensor.dtype, []).append(tensor)
    for kind in kinds.values():
        bucket: list[Tensor] = []
        for tensor in kind:
            bucket.append(tensor)
            if sum(each.numel() * each.element_size() for each in bucket) >= BUCKET:
                yield bucket
                bucket = []
        if bucket:
            yield bucket


ONE = Processes()


def started_together() -> bool:
    """Whether a launcher has started several processes, of which this is one."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ


def join(device: str) -> Processes:
    """The processes that a launcher has started, of which this is one; the one and only where there are no others.

    ``device`` is that of the run: cpu, cuda ...
    """
    if not started_together():
        return ONE
    from accelerate import Accelerator

    on_cpu = torch.device(device).type == "cpu"
    # Precision, accumulation and clipping are the workflow's, and Accelerate's own are left alone.
    accelerator = Accelerator(cpu=on_cpu, mixed_precision="no")
    if on_cpu and os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true":
        from accelerate import DistributedType, FullyShardedDataParallelPlugin

        # It takes FSDP for accelerators alone, and forgets what it was told of it on a CPU.
        accelerator.state.distributed_type = DistributedType.FSDP
        accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin()
    return Together(accelerator)


__all__ = ["ONE", "OtherProcessFailed", "OutOfMemoryElsewhere", "Processes", "Together", "join", "started_together"]
