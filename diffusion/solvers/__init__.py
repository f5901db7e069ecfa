"""Solvers of the probability-flow ODE with a level of its own for every sample."""

from __future__ import annotations

from .dpm import dpm
from .euler import euler, euler_linear, transfer
from .heun import heun
from .integration import from_noise, integrate
from .rk4 import rk4
from .step import (
    Conditioning,
    History,
    Level,
    Linear,
    Model,
    NextStep,
    Predictor,
    Solver,
    Step,
    appended,
    ask,
    has_masks,
    padded_to,
    rows,
)
from .unipc import Variant, unipc

__all__ = [
    "SOLVERS",
    "Conditioning",
    "History",
    "Level",
    "Linear",
    "Model",
    "NextStep",
    "Predictor",
    "Solver",
    "Step",
    "Variant",
    "appended",
    "ask",
    "euler_linear",
    "from_noise",
    "has_masks",
    "integrate",
    "padded_to",
    "rows",
    "solver",
    "transfer",
]

SOLVERS = ("unipc", "euler", "dpm", "rk4", "heun")


def solver(name: str, order: int = 2, variant: Variant = "bh2") -> Solver:
    """The solver of that name; ``order`` 1..3 matters to unipc and dpm only, ``variant`` to unipc only."""
    if name not in SOLVERS:
        raise ValueError(f"unknown sampler {name!r}: one of {', '.join(SOLVERS)}")
    if order not in (1, 2, 3):
        raise ValueError(f"the order of a sampler is 1, 2 or 3, not {order}")
    if variant not in ("bh1", "bh2"):
        raise ValueError(f"unknown variant of unipc {variant!r}: bh1 or bh2")
    if name == "unipc":
        return unipc(order, variant)
    if name == "dpm":
        return dpm(order)
    if name == "euler":
        return Solver(euler, linear=euler_linear)
    return Solver(heun, calls=2) if name == "heun" else Solver(rk4, calls=4)
