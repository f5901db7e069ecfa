"""What the network is told where there is no caption or class, brought to the device once."""

from __future__ import annotations

from collections.abc import Callable

from ...diffusion.device import moved
from ...diffusion.solvers import Conditioning
from ...training.stream import Step


def negative_rows(step: Step, make: Callable[[], Conditioning] | None, name: str = "guidance") -> Conditioning:
    """The rows (1, ...) on the run's device; kept, since captions are large.

    Raises ValueError, naming the input that asks for them, where there are none.
    """
    if make is None:
        raise ValueError(f"{name}: this data set has neither classes nor captions; set it to 1")
    rows = make
    return step.run.keep(
        (step.current, "negative"), lambda: {name: moved(value, step.run.device) for name, value in rows().items()}
    )
