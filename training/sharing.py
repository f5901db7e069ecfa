"""One training over several processes: gradients and losses of the global batch, and weights held in parts (FSDP2).

Every process has the gradient of its own items' share of the global mean, and these are added up once an update, when
all have got so far: a process that runs out of memory, or whose loss is no number, is agreed on first. Where the
weights are held in parts, FSDP adds the gradients up by itself, and each forward is an exchange in which all must take
part: see :class:`Pace`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..hosts.processes import Processes
from ..models.model import Model, trained_in
from ..models.quantization import is_squeezed
from .stream import Step

SHARDABLE = ("adamw", "sgd", "lion")
"""Optimizers that update each number of a weight by itself, and so a part of a weight as well as the whole."""


class Pace:
    """All processes make equally many forwards, for in each one they bring the weights together.

    Rollouts are ragged, and samples are drawn by the first process alone. So before a forward without gradient a
    process says that it makes one; whoever is waiting for the others by then makes an idle one with them, on the
    smallest input that it has seen. Forwards with a gradient, and whatever else is exchanged, are the same for all, and
    begin when nobody has forwards left to make. However the lengths of rollouts fall, nobody waits for ever.
    """

    def __init__(self, network: nn.Module, processes: Processes) -> None:
        self.network, self.processes = network, processes
        self.smallest: tuple[int, tuple[Any, ...], dict[str, Any]] | None = None
        self.idle = self.asking = False
        network.register_forward_pre_hook(self._before, prepend=True, with_kwargs=True)

    def _before(self, network: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        if self.idle:
            return
        size = sum(value.numel() for value in (*inputs, *named.values()) if isinstance(value, Tensor))
        if self.smallest is None or size < self.smallest[0]:
            self.smallest = size, detached(inputs), dict(zip(named, detached(named.values()), strict=True))
        if torch.is_grad_enabled():
            self.settle()
        else:
            self._anybody(True)

    def _anybody(self, asks: bool) -> bool:
        """Whether any process makes a forward now."""
        self.asking = True
        try:
            return self.processes.any(asks)
        finally:
            self.asking = False

    def settle(self) -> None:
        """Before something that all do together: make the forwards that others still need."""
        if self.asking or self.idle or self.processes.left:
            return
        while self._anybody(False):
            if self.smallest is None:
                raise RuntimeError("another process makes a forward before there was any here")
            _, inputs, named = self.smallest
            self.idle = True
            try:
                with torch.no_grad():
                    self.network(*inputs, **named)
            finally:
                self.idle = False


def detached(values: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(value.detach().clone() if isinstance(value, Tensor) else value for value in values)


def over_processes(network: nn.Module, optimizers: list[Optimizer], name: str, processes: Processes) -> None:
    """Give each process its part of the weights, where Accelerate was told so (FSDP2); else all have the same whole.

    Raises ValueError for an optimizer, called ``name``, that needs whole weights.
    """
    if processes.count == 1:
        return
    if not processes.shards:
        with torch.no_grad():
            for weight in trained_in(network).values():
                torch.distributed.broadcast(weight, src=0)
        return
    if name not in SHARDABLE:
        raise ValueError(
            f"optimizer: {name} needs whole weights, and FSDP gives each process a part: choose one of "
            f"{', '.join(SHARDABLE)}, or start the processes without FSDP"
        )
    if getattr(processes.accelerator.state.fsdp_plugin, "fsdp_version", 1) != 2:
        raise ValueError("FSDP: set fsdp_version to 2 in the configuration of accelerate")
    processes.accelerator.prepare(network, *optimizers)
    processes.settle = Pace(network, processes).settle  # type: ignore[method-assign]


def check_parts(model: Model, processes: Processes) -> None:
    """Raises ValueError, naming the remedy, for a model whose weights cannot be held in parts, where they would be."""
    if not processes.shards:
        return
    if model.swap:
        raise ValueError("swap: blocks that come and go do not go with FSDP, which has a part of each: set swap to 0")
    if any(is_squeezed(weight) for weight in model.network.parameters()):
        raise ValueError(
            "quantize: squeezed weights do not go with FSDP, which cuts them in parts: set quantize to none, or start "
            "the processes without FSDP"
        )


def mean_over(processes: Processes, losses: Tensor) -> Tensor:
    """This process's part of the mean loss of the global batch, of its own losses (B,): gradients are added up."""
    if processes.count == 1:
        return losses.mean()
    share = losses.sum() / processes.total(len(losses))
    return share * processes.count if processes.shards else share  # FSDP takes the mean of the gradients


def add_up_gradients(processes: Processes, parameters: list[nn.Parameter], step: Step) -> Tensor:
    """Put the gradient of the global batch into every process. Returns its loss, which is finite where all are."""
    loss = step.metrics["loss"]
    assert isinstance(loss, Tensor)
    if processes.count == 1:
        return loss
    loss = loss.clone()
    if processes.shards:
        processes.add_up([loss])
        return loss
    anywhere = zip(*processes.gathered([weight.grad is not None for weight in parameters]), strict=True)
    for weight, has in zip(parameters, anywhere, strict=True):
        if any(has) and weight.grad is None:
            weight.grad = torch.zeros_like(weight)
    processes.add_up([*(weight.grad for weight in parameters if weight.grad is not None), loss])
    return loss
