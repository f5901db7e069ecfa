"""Euler steps that put new noise in, for flow matching: a rollout then sees more than the one deterministic path."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor

from ..predictions import blend
from ..share import Share
from ..solvers import History, Level, Predictor, Solver

Stochastic = Literal["cps", "flow_sde"]


@dataclass(frozen=True)
class Noise:
    """Which new noise, and how much of it in 0..1; 0 is Euler's method."""

    kind: Stochastic
    scale: float = 0.5

    def solver(self, generator: Generator | SharedNoise) -> Solver:
        """``generator`` is on the latents' device."""
        return stochastic(self.kind, self.scale, generator)


class SharedNoise:
    """The noise of each step for all items of the global batch that are under way, of which some are here.

    ``lengths`` are those of all rollouts (total,), on the CPU; ``generator`` is on the latents' device.
    """

    def __init__(self, generator: Generator, lengths: Tensor, share: Share) -> None:
        order = torch.argsort(lengths, descending=True, stable=True)
        self.generator, self.lengths, self.here = generator, lengths, torch.isin(order, share.places)
        self.steps = 0

    def like(self, x: Tensor) -> Tensor:
        """The next step's noise for the items here."""
        going = int((self.lengths > self.steps).sum())
        self.steps += 1
        drawn = torch.randn((going, *x.shape[1:]), generator=self.generator, device=x.device, dtype=x.dtype)
        return Share(self.here[:going].nonzero().flatten(), going).of(drawn)

    def finish(self, x: Tensor) -> None:
        """Draw what others still need, so that whoever draws next does so as they do."""
        while bool((self.lengths > self.steps).any()):
            self.like(x)


def stochastic(kind: Stochastic, scale: float, generator: Generator | SharedNoise) -> Solver:
    """The solver of that kind.

    ``cps``: Coefficients-Preserving Sampling (arXiv 2509.05952): a share of the noise that the next level has is new,
    ``x' = (1 - sigma') latents + sqrt(sigma'^2 - s^2) noise + s xi`` with ``s = sigma' sin(scale pi / 2)``.

    ``flow_sde``: Flow-GRPO's Euler-Maruyama step (arXiv 2505.05470), ``s = scale sqrt(sigma / (1 - sigma))``, dt < 0:
    ``x' = x (1 + s^2 dt / (2 sigma)) + velocity (1 + s^2 (1 - sigma) / (2 sigma)) dt + s sqrt(-dt) xi``. From pure
    noise s is that of the level that is next, as there; and so it is from all levels less than a step below, from which
    s would grow without bounds.
    """

    def step(predict: Predictor, x: Tensor, now: Level, then: Level, history: History) -> tuple[Tensor, History]:
        if not predict.schedule.is_flow_matching:
            raise ValueError(f"{kind} is for flow matching")
        velocity = predict.output(x, now)
        if isinstance(generator, SharedNoise):
            xi = generator.like(x)
        else:
            xi = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
        if kind == "cps":
            new = then.sigma * math.sin(scale * math.pi / 2)
            kept = (then.sigma**2 - new**2).sqrt()
            # latents = x - sigma velocity, noise = x + alpha velocity
            of_velocity = kept * now.alpha - then.alpha * now.sigma
            return blend((then.alpha + kept, x), (of_velocity, velocity), (new, xi)), history
        dt = then.sigma - now.sigma
        below_one = torch.where(now.sigma - dt <= 1 + 1e-9, now.sigma, then.sigma)
        variance = scale**2 * below_one / (1 - below_one)
        of_x = 1 + variance * dt / (2 * now.sigma)
        of_velocity = (1 + variance * (1 - now.sigma) / (2 * now.sigma)) * dt
        return blend((of_x, x), (of_velocity, velocity), ((-variance * dt).sqrt(), xi)), history

    return Solver(step)
