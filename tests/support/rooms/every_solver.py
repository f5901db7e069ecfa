"""Every solver at each of its orders, and a walk with one."""

import torch
from comfyui_rollout.diffusion.rollout import ragged_grid
from comfyui_rollout.diffusion.solvers import SOLVERS, integrate

EVERY_SOLVER = [(name, 1, "bh2") for name in SOLVERS if name not in ("dpm", "unipc")]
EVERY_SOLVER += [("dpm", order, "bh2") for order in (1, 2, 3)]
EVERY_SOLVER += [("unipc", order, variant) for order in (1, 2, 3) for variant in ("bh1", "bh2")]


def name_of(value):
    return "-".join(map(str, value)) if isinstance(value, tuple) else getattr(value, "prediction", None)


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def distance(a, b):
    return (a - b).abs().max().item()


def walk(model, schedule, x, source, target, steps, solve):
    """All items in the same number of even steps, each from its own source to its own target."""
    lengths = torch.full((len(x),), steps)
    return integrate(model, schedule, x, ragged_grid(source, target, lengths), lengths, {}, solve)
