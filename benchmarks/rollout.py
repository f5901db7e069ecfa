"""What a rollout costs. One process, one plan, one set of weights, all variants in turn; medians of the ratios.

(a) against rolling out one sample at a time, as SimpleTuner does, same lengths: at least 4 times as fast (10 on
    a GPU), and how that shrinks on a network of four times the weights, which fills the device by itself
(b) against the ideal, the same forwards at the same batch sizes and one training pass, nothing else: at most 1.10
(c) ReflexFlow on against off: the difference is at most one forward of the whole batch without gradient
(d) cost as work grows: time per step over max_step_offset and batch, and how straight the line is

    python benchmarks/rollout.py [--device cuda] [--compile] [--plot docs/images/rollout_cost.png]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from comfyui_rollout.diffusion import losses, reflexflow
from comfyui_rollout.diffusion.rollout import Draw, NoisyBatch, RolloutPlan, noisy_batch, roll_out
from comfyui_rollout.diffusion.schedules import FlowMatching
from comfyui_rollout.diffusion.solvers import Conditioning, ask, rows, solver
from comfyui_rollout.models.families import DiT, UNet
from comfyui_rollout.models.model import Model
from report import conclude, table
from torch import Tensor

SCHEDULE = FlowMatching()
EULER = solver("euler")


@dataclass
class Bench:
    """A model on a device, and the pieces of a training step to be timed."""

    model: Model
    device: torch.device
    sizes: list[int]

    def __call__(self, x: Tensor, timestep: Tensor, conditioning: Conditioning) -> Tensor:
        self.sizes.append(len(x))
        return self.model(x, timestep, conditioning)

    def batch(self, count: int) -> NoisyBatch:
        random = torch.Generator().manual_seed(count)
        shape = (count, *self.model.latent_shape)
        latents, noise = (torch.randn(shape, generator=random).to(self.device) for _ in range(2))
        labels = (torch.arange(count) % 10).to(self.device)
        return noisy_batch(latents, noise, SCHEDULE.sample_timesteps(count, random), SCHEDULE, {"label": labels})

    def seconds(self, work: Callable[[], object]) -> float:
        self.wait()
        begun = time.perf_counter()
        work()
        self.wait()
        return time.perf_counter() - begun

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def step(self, batch: NoisyBatch, draw: Draw, reflex: bool = False) -> None:
        """A whole training step but for the optimizer."""
        with self.model.evaluating():
            batch = roll_out(self, batch, draw, EULER, want_clean_output=reflex)
        wanted = losses.target(batch)
        output = ask(self, batch.x, batch.timestep, batch.conditioning)
        if reflex:
            loss, _ = reflexflow.spec(output, wanted, batch)
        else:
            loss = losses.per_item(losses.elementwise(output, wanted))
        self.backward(loss.mean())

    def backward(self, loss: Tensor) -> None:
        loss.backward()
        self.model.network.zero_grad(set_to_none=True)

    @torch.no_grad()
    def one_at_a_time(self, batch: NoisyBatch, draw: Draw, reflex: bool = False) -> None:
        """The reference's way: each item by itself, at batch size 1, and ReflexFlow's clean prediction too."""
        with self.model.evaluating():
            for item in range(len(batch.x)):
                one = slice(item, item + 1)
                told = rows(batch.conditioning, one)
                alone = noisy_batch(batch.latents[one], batch.noise[one], batch.timestep[one], SCHEDULE, told)
                roll_out(self, alone, Draw(*(part[one] for part in draw)), EULER, want_clean_output=reflex)

    def all_together(self, batch: NoisyBatch, draw: Draw, reflex: bool = False) -> None:
        with self.model.evaluating():
            roll_out(self, batch, draw, EULER, want_clean_output=reflex)

    def forwards(self, batch: NoisyBatch, sizes: list[int]) -> None:
        """Nothing but the network, at these batch sizes."""
        timestep = batch.timestep.to(self.device, torch.float32)
        with torch.no_grad(), self.model.evaluating():
            for size in sizes:
                self.model(batch.x[:size], timestep[:size], rows(batch.conditioning, slice(size)))

    def ideal_step(self, batch: NoisyBatch, sizes: list[int]) -> None:
        self.forwards(batch, sizes)
        timestep = batch.timestep.to(self.device, torch.float32)
        self.backward(self.model(batch.x, timestep, batch.conditioning).square().mean())

    def sizes_of(self, batch: NoisyBatch, draw: Draw) -> list[int]:
        """The batch sizes of a rollout's forwards."""
        self.sizes.clear()
        self.all_together(batch, draw)
        return list(self.sizes)


def drawn(batch: NoisyBatch, longest: int, number: int) -> Draw:
    plan = RolloutPlan(max_step_offset=longest, probability=1.0, step_size=20.0)
    return plan.draw(batch.timestep, SCHEDULE, 0, torch.Generator().manual_seed(number))


def one_by_one(bench: Bench, count: int, rounds: int, reflex: bool) -> tuple[float, float, float]:
    """How many times as fast all together are, and the forwards of both ways."""
    batch, speedups, forwards = bench.batch(count), [], []
    for number in range(rounds + 1):
        draw = drawn(batch, 10, number)
        seconds, calls = [], []
        for way in (bench.one_at_a_time, bench.all_together):
            bench.sizes.clear()
            seconds.append(bench.seconds(partial(way, batch, draw, reflex)))
            calls.append(len(bench.sizes))
        if number:  # the first round warms up
            speedups.append(seconds[0] / seconds[1])
            forwards.append(calls)
    alone, together = map(statistics.mean, zip(*forwards, strict=True))
    return statistics.median(speedups), alone, together


def against_the_ideal(bench: Bench, count: int, rounds: int) -> dict[str, float]:
    batch = bench.batch(count)
    over_ideal, reflex_in_forwards = [], []
    for number in range(rounds + 1):
        draw = drawn(batch, 10, number)
        sizes = bench.sizes_of(batch, draw)
        ideal = bench.seconds(partial(bench.ideal_step, batch, sizes))
        plain = bench.seconds(partial(bench.step, batch, draw))
        reflex = bench.seconds(partial(bench.step, batch, draw, reflex=True))
        forward = bench.seconds(partial(bench.forwards, batch, [count]))
        if number:  # the first round warms up
            over_ideal.append(plain / ideal)
            reflex_in_forwards.append((reflex - plain) / forward)
    return {
        "over_the_ideal": statistics.median(over_ideal),
        "reflexflow_in_forwards": statistics.median(reflex_in_forwards),
    }


def as_work_grows(bench: Bench, rounds: int) -> tuple[list[list[float]], float]:
    """Rows (batch, max_step_offset, sample-forwards, milliseconds), and how well a line fits from batch 32 on."""
    measured = []
    for count in (1, 4, 16, 32, 64):
        batch = bench.batch(count)
        for longest in (0, 2, 4, 8, 16, 32):
            draws = [drawn(batch, longest, number) for number in range(rounds)]
            work = statistics.mean(sum(bench.sizes_of(batch, draw)) for draw in draws)
            seconds = statistics.median(bench.seconds(partial(bench.all_together, batch, draw)) for draw in draws)
            measured.append([count, longest, work, 1000 * seconds])
    beyond = np.array([row[2:] for row in measured if row[0] >= 32 and row[1] > 0])
    return measured, float(np.corrcoef(beyond.T)[0, 1] ** 2)


def plot(measured: list[list[float]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 4), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    for count in sorted({row[0] for row in measured}):
        points = [row for row in measured if row[0] == count]
        axes.plot([row[2] for row in points], [row[3] for row in points], "o-", label=f"batch {count:g}")
    axes.set(xlabel="sample-forwards in the rollout", ylabel="milliseconds", xscale="symlog", yscale="symlog")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    figure.savefig(path)


SIZES = {"small": False, "four times the weights": True}


def network(on_gpu: bool, larger: bool) -> Model:
    """The quickstart's network, or a transformer where there is a GPU; ``larger`` = twice as wide."""
    if on_gpu:
        return DiT.create(channels=4, size=32, classes=10, width=768 if larger else 384, depth=12)
    return UNet.create(channels=1, size=8, classes=10, width=64 if larger else 32, depth=2)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    device = torch.device(options.device)
    torch.manual_seed(0)
    on_gpu = device.type == "cuda"
    count = 16 if on_gpu else 32
    benches = {name: Bench(network(on_gpu, larger).to(device), device, []) for name, larger in SIZES.items()}
    if options.compile:
        for each in benches.values():
            each.model.network.compile(dynamic=True)
    bench = benches["small"]
    compared = {
        (name, reflex): one_by_one(each, count, options.rounds, reflex)
        for name, each in benches.items()
        for reflex in (False, True)
    }
    table(
        ["network", "ReflexFlow", "times as fast as one by one", "forwards one by one", "forwards together"],
        [[name, "on" if reflex else "off", *values] for (name, reflex), values in compared.items()],
    )
    figures = {
        "faster_than_one_at_a_time": compared["small", False][0],
        "faster_with_reflexflow": compared["small", True][0],
        "faster_on_four_times_the_weights": compared["four times the weights", False][0],
    }
    figures |= against_the_ideal(bench, count, options.rounds)
    measured, straightness = as_work_grows(bench, 5)
    table(["batch", "max_step_offset", "sample-forwards", "milliseconds"], measured)
    table(["figure", "value"], [[name, value] for name, value in figures.items()])
    if options.plot:
        plot(measured, options.plot)
    return conclude(
        {**figures, "straightness_r2": straightness},
        at_most={"over_the_ideal": 1.10, "reflexflow_in_forwards": 1.0},
        at_least={"faster_than_one_at_a_time": 10.0 if on_gpu else 4.0, "straightness_r2": 0.95},
    )


if __name__ == "__main__":
    sys.exit(main())
