"""Images from a model: walk a solver from pure noise to the clean end."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from ..diffusion.rollouts.guidance import UNGUIDED, Guidance
from ..diffusion.schedules import Schedule
from ..diffusion.solvers import Conditioning, Solver, from_noise
from ..diffusion.time_shift import told_lower
from ..models.model import Model


@torch.no_grad()
def sample(
    model: Model,
    schedule: Schedule,
    solve: Solver,
    *,
    count: int,
    steps: int,
    conditioning: Conditioning,
    generator: Generator,
    observe: Callable[[int, Tensor], None] | None = None,
    guidance: Guidance = UNGUIDED,
    time_shift: float = 0.0,
) -> Tensor:
    """``count`` latents (count, C, H, W) after ``steps`` solver steps; ``conditioning`` is on the model's device.

    ``observe(step, x)`` is called before the first step and after each; what it raises ends the sampling. The network
    is told a timestep lower by ``time_shift`` (0..1000) than the latents have: see :func:`told_lower`.
    """
    noise = torch.randn(count, *model.latent_shape, generator=generator).to(model.device)
    network = guidance.of(told_lower(model, schedule, time_shift))
    with model.evaluating():
        return from_noise(network, schedule, noise, steps, conditioning, solve, observe)


def parse_labels(text: str, classes: int) -> list[int]:
    """Class labels from a line such as ``0-9`` or ``1, 3, 5-7``; an empty line means all of them.

    Raises ValueError for anything else and for labels that the model does not know.
    """
    if not text.strip():
        return list(range(classes))
    labels: list[int] = []
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        try:
            labels.extend(range(int(first), int(last or first) + 1))
        except ValueError:
            raise ValueError(f"labels {text!r}: write class numbers such as 0-9 or 1, 3, 5") from None
    unknown = [label for label in labels if not 0 <= label < classes]
    if unknown or not labels:
        raise ValueError(f"labels {text!r}: the model knows classes 0 to {classes - 1}")
    return labels
