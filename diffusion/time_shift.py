"""Sampling with shifted time steps (arXiv 2305.15583): the network is told of a level nearer to the data than it is.

Sampled latents of few steps have less variance than training ones of their level: they look like those of a lower one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from torch import Tensor

from .schedules import Schedule
from .solvers import Conditioning, Model


def told_lower(model: Model, schedule: Schedule, by: float) -> Model:
    """The network, told of a timestep lower by so much (0..1000), but of none below the data's."""
    if not by:
        return model

    def network(x: Tensor, timestep: Tensor, conditioning: Conditioning) -> Tensor:
        return model(x, (timestep - by).clamp(min=schedule.clean_timestep), conditioning)

    return network


@contextmanager
def pipeline_told_lower(pipeline: Any, by: float) -> Iterator[None]:
    """The same for one call of a diffusers pipeline, which tells its network the timesteps that its scheduler gives."""
    plain = pipeline.scheduler
    pipeline.scheduler = LowerTimesteps(plain, by) if by else plain
    try:
        yield
    finally:
        pipeline.scheduler = plain


class LowerTimesteps:
    """A diffusers scheduler that gives out lower ``timesteps`` than those by which it steps.

    The true one of each step is known by its place: two low ones may be clamped to the same.
    """

    def __init__(self, scheduler: Any, by: float) -> None:
        self._scheduler, self._by, self._done = scheduler, by, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._scheduler, name)

    def __setattr__(self, name: str, value: Any) -> None:
        """Pass on to the real scheduler what a pipeline sets on it: some set where the steps end."""
        if name.startswith("_"):
            super().__setattr__(name, value)
        else:
            setattr(self._scheduler, name, value)

    @property
    def timesteps(self) -> Tensor:
        true: Tensor = self._scheduler.timesteps
        return (true - self._by).clamp(min=0).to(true.dtype)

    @property
    def _now(self) -> Tensor:
        return self._scheduler.timesteps[self._done]

    def scale_model_input(self, sample: Tensor, timestep: Tensor) -> Tensor:
        scaled: Tensor = self._scheduler.scale_model_input(sample, self._now)
        return scaled

    @property
    def step(self) -> Callable[..., Any]:
        plain = self._scheduler.step

        @wraps(plain)  # pipelines look at its arguments
        def step(output: Tensor, timestep: Tensor, *arguments: Any, **options: Any) -> Any:
            made = plain(output, self._now, *arguments, **options)
            self._done += 1
            return made

        return step
