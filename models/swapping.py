"""Blocks of a frozen network that wait in main memory and come to the device when they are called.

The device holds two of them at a time: the one that computes, and the next, which is copied meanwhile. That serves
training too where blocks are recomputed (gradient checkpointing): a block's weights are wanted when it is called, and
once more when it is computed again for its backward pass, and autograd keeps nothing of it in between. Adapters stay.

diffusers' own group offloading is for inference: it lets go of a block as soon as it has answered, also when its
backward pass is still to come, sends trained adapters away with it, and fetches in the order of forward passes only.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial, wraps
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass
from torch.utils.checkpoint import checkpoint

NOT_OFFLOADED = (
    "offload_activations: swap in Load Pretrained lets blocks come and go already: set it to 0, or switch "
    "offload_activations off"
)
NOT_TRAINED = (
    "swap: blocks that wait cannot be trained themselves: put an Add LoRA node behind the model, or set it to 0"
)
ALIGNMENT = 64
"""Each weight begins at a multiple of so many bytes, whatever its number format."""


def check_swap(swap: int, kind: str, gradient_checkpointing: bool) -> None:
    """Raises ValueError, naming the remedy, where blocks of a network cannot come and go."""
    if swap and not gradient_checkpointing:
        raise ValueError(
            "gradient_checkpointing: swap needs it, for without it every block is kept until the backward pass: switch "
            "it on, or set swap to 0"
        )
    if swap and kind == "nf4":
        raise ValueError("quantize: nf4 does not go with swap: choose int8, fp8 or none, or set swap to 0")


def swappable(network: nn.Module, always_there: Collection[str] = ()) -> list[nn.Module]:
    """The blocks that the network can compute again one by one, in its own order, but for those of these names."""
    out = [network.get_submodule(name) for name in always_there]
    lists = [
        child
        for module in network.modules()
        if hasattr(module, "gradient_checkpointing")
        for child in module.children()
        if isinstance(child, nn.ModuleList)
    ]
    members = [member for each in lists for member in each]
    return [member for member in members if member not in out and not hasattr(member, "gradient_checkpointing")]


def spread(count: int, total: int) -> list[int]:
    """``count`` of 0..total-1, as even as can be: what stays computes while the next one is copied."""
    count = min(count, total)
    return [(2 * place + 1) * total // (2 * count) for place in range(count)]


class Swap:
    """Some blocks of a network, at home in main memory. The network must not be on the device yet."""

    def __init__(self, network: Any, count: int, device: torch.device, always_there: Collection[str] = ()) -> None:
        """``count`` blocks of the network are swapped, or all that it has but for those of these names.

        Raises ValueError where it has none that can be computed again.
        """
        every = swappable(network, always_there)
        if not every:
            raise ValueError(f"swap: a {type(network).__name__} has no blocks that could wait elsewhere; set it to 0")
        self.device = device
        self.blocks = [Block(every[place], pinned=device.type == "cuda") for place in spread(count, len(every))]
        self.order: list[Block] = []
        """As they were called for the first time."""
        with torch.inference_mode(False):
            size = max(block.size for block in self.blocks)
            self.places = [torch.empty(size, dtype=torch.uint8, device=device) for _ in range(2)]
        self.holds: list[Block | None] = [None, None]
        self.newest = 0
        """The place of the block that was called last."""
        self.recomputed = False
        """Whether what is called now keeps nothing, and is computed again for its backward pass."""
        self.copying = Copying(device, self.places)
        for block in self.blocks:
            block.module.forward = self._with_weights(block, block.module.forward)
        network.enable_gradient_checkpointing(self.checkpoint)

    @property
    def size(self) -> int:
        """Bytes of the blocks that wait."""
        return sum(block.size for block in self.blocks)

    def checkpoint(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """What the network's gradient checkpointing calls in place of torch's."""
        return checkpoint(partial(self._recomputed, function), *args, use_reentrant=False, **kwargs)

    def _recomputed(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self.recomputed = True
        try:
            return function(*args, **kwargs)
        finally:
            self.recomputed = False

    def _with_weights(self, block: Block, forward: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(forward)
        @torch.compiler.disable
        def call(*args: Any, **kwargs: Any) -> Any:
            # Weights that autograd is going to keep must not be written over: they get a copy of their own.
            kept = torch.is_grad_enabled() and not self.recomputed
            weights = block.waiting.to(self.device, copy=True) if kept else self._brought(block)
            with block.weights_in(weights):
                return forward(*args, **kwargs)

        return call

    def _brought(self, block: Block) -> Tensor:
        """The memory on the device that holds this block; the next one is on its way to the other place."""
        if block not in self.order:
            self.order.append(block)
        if block not in self.holds:
            self._bring(block, 1 - self.newest)
        self.newest = self.holds.index(block)
        self.copying.wait(self.newest)
        following = self._following(block)
        if following is not None and following not in self.holds:
            self._bring(following, 1 - self.newest)
        return self.places[self.newest]

    def _bring(self, block: Block, place: int) -> None:
        """Copy a block to a place whose work was all given to the device before.

        In a backward pass too: autograd goes through what was computed in exactly the reverse order, so the block that
        was called last is the only one whose gradients are still under way.
        """
        self.copying.begin(block.waiting, place)
        self.holds[place] = block

    def _following(self, block: Block) -> Block | None:
        """The block that is called next, as far as it is known."""
        place = self.order.index(block)
        if torch._C._current_graph_task_id() != -1:  # in a backward pass
            return self.order[place - 1] if place else None
        if place + 1 < len(self.order):
            return self.order[place + 1]
        # After a forward pass without gradient there is another one; after one with gradient its backward pass.
        return None if torch.is_grad_enabled() or len(self.order) < len(self.blocks) else self.order[0]


class Block:
    """A module whose weights lie in main memory, one after the other."""

    def __init__(self, module: nn.Module, *, pinned: bool) -> None:
        self.module = module
        self.homes = [
            (owner, name) for owner in module.modules() for name, weight in owner.named_parameters(recurse=False)
        ]
        weights = [owner.get_parameter(name).detach() for owner, name in self.homes]
        apart = [taken_apart(weight) for weight in weights]
        parts, self.makers = [part for each, _ in apart for part in each], [make for _, make in apart]
        starts = [0]
        for part in parts:
            starts.append(starts[-1] + -(-part.nbytes // ALIGNMENT) * ALIGNMENT)
        self.size = starts[-1]
        self.forms = [(start, part.dtype, part.shape) for start, part in zip(starts, parts, strict=False)]
        self.waiting = torch.empty(self.size, dtype=torch.uint8, pin_memory=pinned)
        for place, part in zip(self.parts_in(self.waiting), parts, strict=True):
            place.copy_(part)
        for (owner, name), weight in zip(self.homes, self.made_of(self.waiting), strict=True):
            setattr(owner, name, nn.Parameter(weight, requires_grad=False))
        for owner in {owner for owner, _ in self.homes}:
            owner._apply = stay(owner)  # type: ignore[method-assign]

    def parts_in(self, memory: Tensor) -> Iterator[Tensor]:
        for start, dtype, shape in self.forms:
            part = memory[start : start + prod(shape) * dtype.itemsize]
            yield part.view(dtype).view(shape)

    def made_of(self, memory: Tensor) -> list[Tensor]:
        """The weights, as views of memory in which they lie."""
        parts = self.parts_in(memory)
        return [make(parts) for make in self.makers]

    @contextmanager
    def weights_in(self, memory: Tensor) -> Iterator[None]:
        """Inside, the module's weights are those in this memory."""
        waiting = [owner._parameters[name] for owner, name in self.homes]
        try:
            for (owner, name), weight in zip(self.homes, self.made_of(memory), strict=True):
                owner._parameters[name] = weight  # type: ignore[assignment]  # no Parameter, which is as good
            yield
        finally:
            for (owner, name), parameter in zip(self.homes, waiting, strict=True):
                owner._parameters[name] = parameter


class Copying:
    """Copies to places on the device, beside what it computes: on CUDA in a stream of their own."""

    def __init__(self, device: torch.device, places: list[Tensor]) -> None:
        self.device, self.places = device, places
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.done: list[Any] = [None for _ in places]
        if self.stream is not None:
            for place in places:
                place.record_stream(self.stream)  # their memory is not given away while a copy is under way

    def begin(self, source: Tensor, place: int) -> None:
        """Copy to this place once the device has done all that it was given until now."""
        target = self.places[place][: len(source)]
        if self.stream is None:
            target.copy_(source)
            return
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.stream):
            target.copy_(source, non_blocking=True)
            self.done[place] = self.stream.record_event()

    def wait(self, place: int) -> None:
        """Whatever the device is given from now on comes after the copy to this place; the program goes on."""
        if self.stream is not None:
            torch.cuda.current_stream(self.device).wait_event(self.done[place])


def taken_apart(weight: Tensor) -> tuple[list[Tensor], Callable[[Iterator[Tensor]], Tensor]]:
    """The plain tensors that a weight consists of (itself, or the numbers and scales of a squeezed one), and how it is
    made of the next of such tensors again.
    """
    if not is_traceable_wrapper_subclass(weight):
        return [weight], next
    names, context = weight.__tensor_flatten__()
    kind: Any = type(weight)
    inner = {name: taken_apart(getattr(weight, name)) for name in names}
    shape, stride = weight.shape, weight.stride()

    def make(parts: Iterator[Tensor]) -> Tensor:
        made: Tensor = kind.__tensor_unflatten__(
            {n: one(parts) for n, (_, one) in inner.items()}, context, shape, stride
        )
        return made

    return [part for parts, _ in inner.values() for part in parts], make


def stay(owner: nn.Module) -> Callable[..., nn.Module]:
    """In place of what moves a module: its own weights stay where they are, all else goes."""

    def apply(function: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        for child in owner.children() if recurse else ():
            child._apply(function)
        for name, buffer in owner.named_buffers(recurse=False):
            owner._buffers[name] = function(buffer)
        return owner

    return apply
