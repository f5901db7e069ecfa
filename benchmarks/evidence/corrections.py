"""Corrections at sampling time, which cost no training: on the teacher-forced models of run.py, at 8 evaluations.

``shift``: the sampler's levels moved towards noise (above 1) or data. ``time shift``: the network is told a level so
much lower (arXiv 2305.15583). ``epsilon scaling``: the predicted noise is divided by a constant (ADM-ES, arXiv
2308.15321).

    python benchmarks/evidence/corrections.py [--data digits] [--seeds 0 1 2] [--budget short]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from itertools import product
from typing import Any

import torch
from comfyui_rollout.diffusion.schedules import FlowMatching
from comfyui_rollout.diffusion.solvers import integrate, solver
from comfyui_rollout.models.model import Model
from comfyui_rollout.models.saving import load_model
from judge import Judge
from run import AT_ONCE, DATA, PLAIN, RESULTS, judged, labels_of, trained
from torch import Tensor

FILE = RESULTS.with_name("evidence_corrections.jsonl")
STEPS = 8
Asked = Callable[[Tensor, Tensor, dict[str, Tensor]], Tensor]


def time_shift(model: Model, by: float) -> Asked:
    return lambda x, timestep, told: model(x, (timestep - by).clamp(min=0), told)


def epsilon_scaling(model: Model, by: float) -> Asked:
    """The velocity of noise / ``by``: ``noise = x + (1 - sigma) v``; at pure noise nothing can be told from it."""

    def network(x: Tensor, timestep: Tensor, told: dict[str, Tensor]) -> Tensor:
        velocity = model(x, timestep, told)
        left = (1 - timestep / 1000).reshape(-1, 1, 1, 1)
        scaled = ((x + left * velocity) / by - x) / left.clamp(min=1e-3)
        return torch.where(left > 0.01, scaled, velocity)

    return network


VARIANTS: dict[str, tuple[float, Callable[[Model], Asked]]] = {"none": (1.0, lambda model: model)}
VARIANTS |= {f"shift {by}": (by, lambda model: model) for by in (0.5, 0.7, 1.5, 2.0)}
VARIANTS |= {f"time shift {by}": (1.0, lambda model, by=by: time_shift(model, by)) for by in (-20, 20)}
VARIANTS |= {
    f"epsilon scaling {by}": (1.0, lambda model, by=by: epsilon_scaling(model, by)) for by in (0.98, 0.99, 1.01)
}


@torch.no_grad()
def distance(network: Asked, live: Model, shift: float, kind: str, name: str, judge: Judge) -> float:
    schedule, labels = FlowMatching(shift=shift), labels_of(name)
    grid, generator, parts = schedule.sampling_timesteps(STEPS), torch.Generator().manual_seed(1), []
    with live.evaluating():
        for part in labels.split(AT_ONCE):
            noise = torch.randn(len(part), *live.latent_shape, generator=generator)
            steps = torch.full((len(part),), STEPS)
            told = {"label": part}
            levels = grid[:, None].expand(-1, len(part))
            parts.append(integrate(network, schedule, noise, levels, steps, told, solver(kind)))
    return float(judge.verdict(torch.cat(parts), labels)["fd"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=DATA, default=["digits"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--budget", default="short")
    parser.add_argument("--arm", default=PLAIN)
    options = parser.parse_args()
    torch.set_num_threads(1)
    there = [json.loads(line) for line in FILE.read_text().splitlines()] if FILE.is_file() else []
    for seed, name in product(options.seeds, options.data):
        key: dict[str, Any] = {"data": name, "budget": options.budget, "seed": seed, "arm": options.arm}
        if any(all(row[what] == value for what, value in key.items()) for row in there):
            continue
        live, (_, judge) = load_model(trained(options.arm, name, seed, options.budget)), judged(name)
        for kind in ("euler", "unipc"):
            for variant, (shift, make) in VARIANTS.items():
                key[f"{kind}: {variant}"] = round(distance(make(live), live, shift, kind, name, judge), 5)
        with FILE.open("a") as file:
            file.write(json.dumps(key) + "\n")
        print(key, flush=True)


if __name__ == "__main__":
    main()
