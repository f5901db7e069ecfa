"""Weights that are updated one at a time: as soon as each has its gradient, and those in bf16 by way of float32.

Fused backward (arXiv 2306.09782): an update happens inside of the backward pass, and no more than a few gradients are
there at once. Stochastic rounding (arXiv 2010.06192): a weight in bf16 goes to one of its two neighbours by chance, the
nearer the likelier, so that small updates arrive on average, which rounding to the nearest would swallow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Generator, Tensor, nn
from torch.optim import Optimizer

from ..diffusion import seeds
from .options import TrainingOptions

KINDS = ("adamw", "adafactor", "sgd", "muon", "adamw_8bit")
"""Optimizers that update each weight by itself; the others keep something of all weights together."""

LOW = 16
"""Bits of a float32 that a bf16 has not."""


class OneByOne:
    """Makes single weights' updates with optimizers that are made for all of them."""

    def __init__(self, optimizers: Sequence[Optimizer], weights: Sequence[nn.Parameter], seed: int) -> None:
        self.seed, self.number = seed, 0
        self.optimizers = optimizers
        self.places = {weight: place for place, weight in enumerate(weights)}
        self.random = {device: Generator(device) for device in {weight.device for weight in weights}}
        self.loss: Tensor | None = None
        """Where updates happen in the backward pass: the loss whose backward pass it is."""
        self.bad: Tensor | None = None
        """Whether something of this update was left out: a bool on the device; None = nothing was looked at."""

    def fuse(self, skip: bool) -> None:
        """From now on each weight is updated in the backward pass, as soon as its gradient is there.

        ``skip``: a gradient that is no finite number, or is that of such a :attr:`loss`, counts as zero.
        """

        def there(weight: nn.Parameter) -> None:
            if skip and self.loss is not None:
                self.step_if_finite(weight, self.loss)
            else:
                self.step(weight)

        for weight in self.places:
            weight.register_post_accumulate_grad_hook(there)

    def begin(self, number: int) -> None:
        """From now on weights are updated as in the training's update ``number``, on which their rounding depends."""
        self.number, self.bad = number, None
        groups = [(optimizer, group) for optimizer in self.optimizers for group in optimizer.param_groups]
        self.homes = {weight: home for home in groups for weight in home[1]["params"]}

    def step(self, weight: nn.Parameter) -> None:
        """Update one weight by its gradient, which is let go; nothing where there is none."""
        if weight.grad is None:
            return
        optimizer, group = self.homes[weight]
        everyone, group["params"] = group["params"], [weight]
        random = self.random[weight.device]
        random.manual_seed(seeds.derive(self.seed, "rounding", self.number, self.places[weight]))
        try:
            with in_float32(weight, random):
                optimizer.step()
        finally:
            group["params"] = everyone
            weight.grad = None

    def step_if_finite(self, weight: nn.Parameter, loss: Tensor) -> None:
        """As :meth:`step`, but a gradient that is no finite number, or is that of such a loss, counts as zero."""
        assert weight.grad is not None
        bad = ~(weight.grad.isfinite().all() & loss.isfinite().to(weight.device))
        weight.grad.masked_fill_(bad, 0)
        self.bad = bad if self.bad is None else self.bad | bad.to(self.bad.device)
        self.step(weight)


@contextmanager
def in_float32(weight: nn.Parameter, random: Generator) -> Iterator[None]:
    """Inside, a weight in bf16 and its gradient are in float32; what it has become is rounded by chance."""
    kept = weight.data
    if kept.dtype != torch.bfloat16 or weight.grad is None:
        yield
        return
    gradient, weight.grad = weight.grad, None
    weight.data = kept.float()
    weight.grad = gradient.float()
    try:
        yield
        kept.copy_(rounded(weight.data, random))
    finally:
        weight.grad = None
        weight.data = kept


def rounded(values: Tensor, random: Generator) -> Tensor:
    """Numbers in float32 as bf16, each at one of its two neighbours and on average where it was."""
    bits = values.contiguous().view(torch.int32)
    drawn = torch.randint(1 << LOW, bits.shape, dtype=torch.int32, device=bits.device, generator=random)
    cut = ((bits + drawn) >> LOW) << LOW
    return torch.where(values.isfinite(), cut.view(torch.float32), values).to(torch.bfloat16)


def check(optimizer: str, options: TrainingOptions, processes: int) -> None:
    """Raises ValueError, naming the remedy, where weights cannot be updated one at a time, as they are to be."""
    if not options.one_by_one:
        return
    fused, half = options.fused_backward, options.weights_dtype == "bf16"
    why = "fused_backward" if fused else "weights_dtype bf16"
    off = "switch fused_backward off" if fused else "choose weights_dtype fp32"
    if optimizer not in KINDS:
        raise ValueError(
            f"optimizer: {optimizer} keeps something of all weights together, and {why} updates one at a time: choose "
            f"{', '.join(KINDS)}, or {off}"
        )
    added = "gradients are not added up" if fused else "gradients would be added up in bf16"
    computed = "the network computes in bf16" if half else "fp16 looks at all gradients before an update"
    whole = "it needs all gradients at once, of which each is let go"
    unfit = options.precision == "fp16" or (half and options.precision != "bf16")
    others = (
        ("accumulation", options.accumulation != 1, added, "set 1"),
        ("on_out_of_memory", options.on_out_of_memory != "stop", added, "choose stop"),
        ("precision", unfit, computed, "choose bf16"),
        ("processes", processes != 1, "gradients of several processes are added up", "set 1"),
        ("clip_norm", fused and options.clip_norm, whole, "set 0"),
    )
    for option, wrong, reason, remedy in others:
        if wrong:
            raise ValueError(f"{option}: with {why} {reason}: {remedy}, or {off}")
