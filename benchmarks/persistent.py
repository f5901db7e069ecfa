"""What persistent and guided rollouts cost. One process, one set of weights, all variants in turn; medians of ratios.

(a) a training step with chains at a quarter of the batch's places, original target, over a plain step of the same
    batch: at most 1.05
(b) with the trajectory target, whose reference is one Heun step, over that plain step and its two forwards: at most
    1.10
(c) the same with chains of 9 steps over chains of 1: at most 1.05
(d) a guided rollout over the same one without guidance, on a network of four times the weights, which fills the device
    by itself: at most 2.1

On a CPU what counts is the time of this process alone: other programs on the machine do not.

    python benchmarks/persistent.py [--device cuda]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from comfyui_rollout.diffusion import losses
from comfyui_rollout.diffusion.chains import Keeper
from comfyui_rollout.diffusion.noisy_batch import NoisyBatch, predict
from comfyui_rollout.diffusion.rollout import Draw, RolloutPlan, roll_out
from comfyui_rollout.diffusion.rollouts.guidance import Guidance
from comfyui_rollout.diffusion.solvers import Solver, solver
from comfyui_rollout.diffusion.trajectory import fine_path, target_onto
from comfyui_rollout.models.families import DiT, UNet
from comfyui_rollout.models.model import Model
from report import conclude, table
from rollout import EULER, Bench, drawn

HEUN = solver("heun")


@dataclass
class Chained:
    """Persistent rollouts at a quarter of a batch's places."""

    longest: int
    reference: Solver | None = None
    keeper: Keeper = field(default_factory=Keeper)

    @property
    def plan(self) -> RolloutPlan:
        return RolloutPlan(max_step_offset=self.longest, probability=0.25, step_size=100.0, rollout="persistent")

    def step(self, bench: Bench, batch: NoisyBatch, number: int) -> None:
        """A training step but for the optimizer."""
        random = torch.Generator().manual_seed(number)
        seat = self.keeper.seat(batch, bench, self.plan, EULER, number, random)
        wanted = losses.target(seat)
        if self.reference is not None:
            with bench.model.evaluating():
                path = fine_path(bench, seat, reference_steps=1, solve=self.reference)
            assert seat.listener is not None
            seat.listener.landed(path.y)
            wanted = target_onto(path, seat)
        bench.backward(losses.per_item(losses.elementwise(predict(bench, seat), wanted)).mean())


def plain_step(bench: Bench, batch: NoisyBatch) -> None:
    output = predict(bench, batch)
    bench.backward(losses.per_item(losses.elementwise(output, losses.target(batch))).mean())


def seconds(bench: Bench, work: Callable[[], object]) -> float:
    if bench.device.type != "cpu":
        return bench.seconds(work)
    begun = time.process_time()
    work()
    return time.process_time() - begun


def persistent(bench: Bench, count: int, rounds: int) -> dict[str, float]:
    """Training steps with chains over plain ones, in turn."""
    batch, ratios = bench.batch(count), []
    kinds = {"plain": Chained(9), "trajectory": Chained(9, HEUN), "short": Chained(1, HEUN)}
    for number in range(rounds + 12):
        plain = seconds(bench, partial(plain_step, bench, batch))
        took = {name: seconds(bench, partial(kind.step, bench, batch, number)) for name, kind in kinds.items()}
        reference = seconds(bench, partial(bench.forwards, batch, [count // 4] * HEUN.calls))
        if number >= 12:  # by then all chains are on their way
            long, short = took["trajectory"], took["short"]
            ratios.append((took["plain"] / plain, long / plain, long / (plain + reference), long / short))
    names = ("step", "trajectory_step", "trajectory_over_the_ideal", "length_9_over_length_1")
    return {
        f"persistent_{name}": statistics.median(each)
        for name, each in zip(names, zip(*ratios, strict=True), strict=True)
    }


def guided(bench: Bench, count: int, rounds: int) -> dict[str, float]:
    """The same rollouts with guidance and without."""
    batch, ratios = bench.batch(count), []
    negative = {"label": torch.zeros(1, dtype=torch.long, device=bench.device)}

    def rolled(draw: Draw, scale: float) -> None:
        with bench.model.evaluating():
            roll_out(bench, batch, draw, EULER, guide=Guidance(scale, negative=negative))

    for number in range(rounds + 1):
        draw = drawn(batch, 4, number)
        alone = seconds(bench, partial(rolled, draw, 1.0))
        ratios.append(seconds(bench, partial(rolled, draw, 4.5)) / alone)
    return {"guided_over_unguided": statistics.median(ratios[1:])}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=31)
    options = parser.parse_args()
    device = torch.device(options.device)
    torch.manual_seed(0)
    models: list[Model]
    if device.type == "cuda":
        models = [DiT.create(channels=4, size=32, classes=10, width=width, depth=12) for width in (384, 768)]
    else:
        models = [UNet.create(channels=1, size=8, classes=10, width=width, depth=2) for width in (32, 64)]
    small, large = (Bench(model.to(device), device, []) for model in models)
    figures = persistent(small, 64, options.rounds) | guided(large, 32, options.rounds)
    table(["figure", "value"], [[name, value] for name, value in figures.items()])
    return conclude(
        figures,
        at_most={
            "persistent_step": 1.05,
            "persistent_trajectory_over_the_ideal": 1.10,
            "persistent_length_9_over_length_1": 1.05,
            "guided_over_unguided": 2.1,
        },
    )


if __name__ == "__main__":
    sys.exit(main())
