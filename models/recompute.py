"""Gradient checkpointing (Chen et al., arXiv 1604.06174) that stays exact where a network changes tensors in place.

torch's own keeps a block's inputs by reference. A block that adds its result to its input in place (``x += f(x)``, as
networks written for inference do) then computes again from what it has changed, and its gradients are wrong without an
error. Here a block works on copies, forward and backward, and what autograd has kept of a tensor is copied before the
tensor is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import allow_mutation_on_saved_tensors
from torch.utils import _pytree as tree


def recompute_blocks(network: nn.Module) -> int:
    """Have every block of the network keep its inputs only, and compute again in the backward pass; how many there are.

    For good: the network must be the caller's own.
    """
    blocks = list(blocks_of(network))
    for block in blocks:
        block.forward = recomputing(block.forward)
    return len(blocks)


def blocks_of(network: nn.Module) -> Iterator[nn.Module]:
    """The members of the network's lists of modules, and of lists in these; not what is inside of a member."""
    for child in network.children():
        if isinstance(child, (nn.ModuleList, nn.Sequential)):
            yield from members(child)


def members(several: nn.Module) -> Iterator[nn.Module]:
    for member in several.children():
        if isinstance(member, (nn.ModuleList, nn.Sequential)):
            yield from members(member)
        else:
            yield member


def recomputing(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, of which autograd keeps the inputs only."""

    def call(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return function(*args, **kwargs)
        block = Block(function, args, kwargs)
        # Something must want a gradient, or autograd would not come back for the weights inside.
        wanted = torch.empty(0, requires_grad=True)
        results = Recomputed.apply(block, wanted, *block.tensors())
        return tree.tree_unflatten(list(results), block.result)

    return call


class Block:
    """One call of a block: its arguments but for the tensors, which autograd keeps."""

    def __init__(self, function: Callable[..., Any], args: Any, kwargs: Any) -> None:
        self.function = function
        self.given, self.form = tree.tree_flatten((args, kwargs))
        self.places = [place for place, value in enumerate(self.given) if isinstance(value, Tensor)]
        self.result: tree.TreeSpec

    def tensors(self) -> list[Tensor]:
        """Gives the tensors away."""
        found = [self.given[place] for place in self.places]
        for place in self.places:
            self.given[place] = None
        return found

    def __call__(self, tensors: Sequence[Tensor]) -> list[Any]:
        """What the block returns, flat, for copies of these tensors."""
        values = list(self.given)
        for place, tensor in zip(self.places, tensors, strict=True):
            values[place] = tensor.clone() if tensor.is_floating_point() else tensor
        args, kwargs = tree.tree_unflatten(values, self.form)
        results, self.result = tree.tree_flatten(self.function(*args, **kwargs))
        return results


class Recomputed(torch.autograd.Function):
    """A block whose inside is computed again for the backward pass."""

    @staticmethod
    def forward(ctx: Any, block: Block, wanted: Tensor, *tensors: Tensor) -> tuple[Any, ...]:
        ctx.block, ctx.device = block, next((tensor.device.type for tensor in tensors), "cpu")
        ctx.cast = (torch.is_autocast_enabled(ctx.device), torch.get_autocast_dtype(ctx.device))
        ctx.save_for_backward(*tensors)
        return tuple(block(tensors))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Any, ...]:
        inputs = [tensor.detach().requires_grad_(tensor.requires_grad) for tensor in ctx.saved_tensors]
        enabled, dtype = ctx.cast
        with (
            torch.enable_grad(),
            torch.autocast(ctx.device, dtype, enabled=enabled, cache_enabled=False),
            allow_mutation_on_saved_tensors(),
        ):
            results = ctx.block(inputs)
            places = [
                place
                for place, (result, gradient) in enumerate(zip(results, gradients, strict=True))
                if isinstance(result, Tensor) and result.requires_grad and gradient is not None
            ]
            if places:  # nothing in a block before the first adapter has a gradient
                torch.autograd.backward([results[place] for place in places], [gradients[place] for place in places])
        return (None, None, *(tensor.grad for tensor in inputs))
