"""The training step as a graph of streams.

ComfyUI runs a node once per prompt and keeps what it returns, so a wire must not carry a live model or a loss. It
carries a :class:`Stream`, the frozen description of what one node contributes to *each* training step. The trainer
pulls the loss stream once per step; whatever that needs is computed once and remembered until the step is over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from ..diffusion import seeds
from ..diffusion.share import Share, dealt_evenly, dealt_in_turn
from ..hosts.host import Host
from ..hosts.processes import ONE, Processes
from .clock import Clock


class Number(NamedTuple):
    """A number that is reported of a step."""

    value: Tensor | float
    of: int = 1
    """How many values it is the mean, the least or the largest of; 0 = a stand-in, which counts only where no other
    part of the batch has a number of that name."""


class StepError(RuntimeError):
    """A node failed during a training step; the message names the node and the step."""


NOT_COMPILED = (
    "compile: torch cannot compile this network with the other options that are on: switch it off in Optimizer Step"
)


def said(error: Exception) -> str:
    """What an error says; in place of the many lines of an error of torch.compile, what to do about it."""
    if type(error).__module__.startswith("torch._dynamo") or "TORCHDYNAMO_VERBOSE" in str(error):
        return NOT_COMPILED
    return str(error) or type(error).__name__


@runtime_checkable
class Kept(Protocol):
    """A value that outlives a step and belongs to the state of a run. A node keeps one at most."""

    def state_dict(self) -> Mapping[str, Any]:
        """All that is needed to go on: tensors, and values that JSON knows, by names without dots."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave; its tensors are on the CPU."""
        ...


@runtime_checkable
class KeptInParts(Kept, Protocol):
    """A value of which each process keeps a part."""

    def joined(self, states: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        """The state of the whole, of every process's :meth:`state_dict`, by rank."""
        ...


@dataclass(frozen=True, eq=False)
class Stream:
    """What one node contributes to each step: ``function(step, **inputs)``."""

    function: Callable[..., Any]
    inputs: Mapping[str, Any] = field(default_factory=dict)
    """Streams, or constants (widget values, schedules)."""
    node_id: str = ""
    title: str = ""
    """The node's display name, for messages."""
    about: Any = None
    """What is known of the value before anything runs, e.g. a dataset's image size and classes."""
    wants: frozenset[str] = frozenset()
    """Extras that this node would like the nodes before it to compute, e.g. ``clean_output``."""
    work: Callable[[Run, int, int], Tensor | None] | None = None
    """``work(run, pull, total)``: what each item of the global batch of that pull will cost this node (total,), on the
    CPU; several processes share the items out by it before they are read. None where items must stay where they are."""

    def walk(self) -> Iterator[Stream]:
        """This stream and all it pulls from, each once, inputs first."""
        seen: set[Stream] = set()
        stack: list[tuple[Stream, bool]] = [(self, False)]
        while stack:
            stream, inputs_done = stack.pop()
            if inputs_done:
                yield stream
            elif stream not in seen:
                seen.add(stream)
                stack.append((stream, True))
                stack.extend((value, False) for value in stream.inputs.values() if isinstance(value, Stream))

    def data(self) -> Stream | None:
        """The first stream that this one pulls from which hands out batches of a data set; None where there is none."""
        return next((part for part in self.walk() if "batch_size" in part.inputs), None)

    def constants(self, kind: type) -> Iterator[Any]:
        """Every constant of that type wired anywhere into this stream."""
        return (value for stream in self.walk() for value in stream.inputs.values() if isinstance(value, kind))


@dataclass(frozen=True)
class FiniteLosses:
    """Which items of a pull have a finite loss; looked at only where the loss or the gradient is not finite."""

    index: int
    """The number of the pull: :attr:`Step.index`."""
    finite: Tensor
    """(B,), bool on the device."""
    levels: Tensor | None
    """Where each item trains (B,), on the CPU."""
    places: Tensor | None = None
    """The items' places in the global batch (B,), on the CPU; None where they are all of it."""


class Run:
    """What outlives a step: the live model, the wishes of the graph, the clock, and where to report."""

    def __init__(
        self,
        *streams: Stream,
        seed: int = 0,
        device: torch.device | str = "cpu",
        host: Host | None = None,
        processes: Processes = ONE,
    ) -> None:
        self.seed = seed
        self.device = torch.device(device)
        self.host = host or Host()
        """Told of what happens; Host() is told and does nothing."""
        self.processes = processes
        """Who trains together."""
        self.clock = Clock(device)
        self.parts = list(dict.fromkeys(part for stream in streams for part in stream.walk()))
        """All streams that may be pulled, inputs first."""
        self.wants = frozenset().union(*(part.wants for part in self.parts))
        self.averaged_weights: Any = None
        """The exponential moving average of the weights, if the trainer keeps one (diffusers' EMAModel)."""
        self.steps = 0
        """Updates of the whole training, those before a resume included; 0 where there is none."""
        self.accumulation = 1
        """Pulls of an update."""
        self.schedule_free: list[Any] = []
        """Optimizers that average the weights by themselves, ``eval()`` and ``train()`` to and fro."""
        self.restored: dict[str, dict[str, Any]] = {}
        """By node id: states from the resumed run, each of which goes once its node has made the value again."""
        self._kept: dict[Any, Any] = {}

    def keep(self, key: Any, make: Callable[[], Any]) -> Any:
        """The run's own value of that key, made when it is first asked for."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    def share(self, pull: int, size: int) -> Share:
        """This process's items of the global batch of a pull, in which each process has ``size``.

        They are dealt by what the nodes say each will cost; where one has something that stays at its place, in turn.
        """
        count = self.processes.count
        if count == 1:
            return Share.whole(size)
        total = size * count
        works = [part.work(self, pull, total) for part in self.parts if part.work is not None]
        costs = [work for work in works if work is not None]
        dealt = dealt_evenly(sum(costs[1:], costs[0]), count) if works and len(costs) == len(works) else None
        return Share((dealt or dealt_in_turn(total, count))[self.processes.rank], total)

    def state_of_kept(self) -> dict[str, dict[str, Any]]:
        """By node id: the states of all values that are :class:`Kept`, also of restored ones not made again yet."""
        states = dict(self.restored)
        for key, value in self._kept.items():
            if isinstance(key, Stream) and isinstance(value, Kept):
                states[key.node_id] = dict(self._whole(value))
        return states

    def _whole(self, value: Kept) -> Mapping[str, Any]:
        """The state of a kept value; one kept in parts is gathered from all processes, all of which must call this."""
        own = value.state_dict()
        if self.processes.count == 1 or not isinstance(value, KeptInParts):
            return own
        there = {name: each.cpu() if isinstance(each, Tensor) else each for name, each in own.items()}
        return value.joined(self.processes.gathered(there))

    def restore_kept(self, states: dict[str, dict[str, Any]]) -> None:
        """Give these states, by node id, to what nodes have kept, and to what they will keep.

        What was not kept yet when the states were saved is made anew.
        """
        for key, value in list(self._kept.items()):
            if not isinstance(key, Stream) or not isinstance(value, Kept):
                continue
            if key.node_id in states:
                value.load_state_dict(states.pop(key.node_id))
            else:
                del self._kept[key]
        self.restored = states

    def value(self, stream: Stream) -> Any:
        """A value that does not change from step to step, such as the live model."""
        return Step(self, 0).value(stream)


class Step:
    """One pull of the graph: its index, what it has computed so far, and what it has to report."""

    def __init__(self, run: Run, index: int, *, update: int | None = None, watched: bool = False) -> None:
        self.run = run
        self.index = index
        """Counts pulls: with gradient accumulation several make one update."""
        self.update = index if update is None else update
        """Counts optimizer updates; ramps and start steps count these."""
        self.watched = watched
        """Whether nodes shall show what passes through them."""
        self.numbers: dict[str, Number] = {}
        """What was reported."""
        self.pulls: list[dict[str, Number]] = []
        """What was reported in each pull of the update, where the numbers are means over them."""
        self.finite: list[FiniteLosses] = []
        """Which items have a finite loss, one entry a pull."""
        self.current: Stream | None = None
        self._memo: dict[Stream, Any] = {}
        self._generators: dict[tuple[str, torch.device], torch.Generator] = {}

    def value(self, stream: Any) -> Any:
        """The stream's value in this step, computed at most once; anything else is a constant and comes back as is."""
        if not isinstance(stream, Stream):
            return stream
        if stream not in self._memo:
            inputs = {name: self.value(value) for name, value in stream.inputs.items()}
            self._memo[stream] = self.call(stream, inputs)
        return self._memo[stream]

    def call(self, stream: Stream, inputs: dict[str, Any]) -> Any:
        """What a node's function makes of these inputs, in this step; an error names both."""
        outer, self.current = self.current, stream
        try:
            with self.run.clock.measure(stream.node_id):
                return stream.function(self, **inputs)
        except Exception as error:
            self._begin_anew(stream)
            if isinstance(error, StepError):
                raise
            where = f"node {stream.node_id} ({stream.title}), step {self.update}"
            raise StepError(f"{where}: {said(error)}") from error
        finally:
            self.current = outer

    def forget(self, stream: Stream) -> None:
        """Let go of a stream's value, so that it would be computed once more, with the same random numbers."""
        self._memo.pop(stream, None)
        self._begin_anew(stream)

    def _begin_anew(self, stream: Stream) -> None:
        self._generators = {key: value for key, value in self._generators.items() if key[0] != stream.node_id}

    def values(self) -> Iterator[Any]:
        """The values of all streams that were computed so far, in no order."""
        return iter(self._memo.values())

    @property
    def node_id(self) -> str:
        """The node whose function is running."""
        return self.current.node_id if self.current else ""

    def generator(self, device: torch.device | str = "cpu") -> torch.Generator:
        """The running node's own generator of this step: keyed by (seed, node, step), so nobody shifts another's."""
        key = (self.node_id, torch.device(device))
        if key not in self._generators:
            self._generators[key] = seeds.generator(self.run.seed, self.node_id, self.index, device=device)
        return self._generators[key]

    def keep(self, make: Callable[[], Any]) -> Any:
        """The running node's value that outlives the step: made in the first step of a run, then always the same.

        One that is :class:`Kept` is saved with the run's state, and has it again when the run is resumed.
        """
        stream = self.current
        assert stream is not None

        def made() -> Any:
            value = make()
            if isinstance(value, Kept) and stream.node_id in self.run.restored:
                value.load_state_dict(self.run.restored.pop(stream.node_id))
            return value

        return self.run.keep(stream, made)

    def report(self, name: str, value: Tensor | float, of: int | None = None) -> None:
        """A number for the metrics; a tensor is averaged and stays on the device until somebody reads it.

        It is ``of`` so many values of this batch (a tensor's own, by default). Of several processes, or parts of a
        batch, the mean is taken by these; the least where the name ends with ``_min``, the largest with ``_max``.
        """
        if isinstance(value, Tensor):
            self.numbers[name] = Number(value.detach().float().mean(), value.numel() if of is None else of)
        else:
            self.numbers[name] = Number(value, 1 if of is None else of)

    @property
    def metrics(self) -> dict[str, Tensor | float]:
        """The reported values by name, without how many values each sums up."""
        return {name: number.value for name, number in self.numbers.items()}

    def show(self, kind: str, picture: Callable[[], Any]) -> None:
        """Show a picture on the running node, if this step is watched; it is not even made otherwise."""
        if self.watched and self.run.host.wants(kind):
            self.run.host.show(self.node_id, kind, self.update, picture())
