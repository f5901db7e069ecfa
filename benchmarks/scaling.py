"""What several processes cost, and what it brings to deal items out by their rollouts.

(a) simulated for 8 to 1024 processes, from forward costs measured here: how long processes wait for the slowest one of
    a step, with items dealt longest first and dealt as they come; at 64 processes of 8 items, rollouts of up to 10
    steps: at most 0.35 of it
(b) two processes of one thread against one process of one thread, each with the same batch: efficiency at least 0.85
(c) one process started by Accelerate's launcher against one without: at most 1.03 times the time of a step

    python benchmarks/scaling.py [--steps 60] [--rounds 3]

(b) and (c) need two cores with nothing else to do: an efficiency above 1.1, or an overhead below 0.9, is no figure, and
says that something else ran beside one of them.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from comfyui_rollout.data.data import Digits, next_batch
from comfyui_rollout.diffusion.rollout import RolloutPlan
from comfyui_rollout.diffusion.schedules import FlowMatching
from comfyui_rollout.diffusion.seeds import generator, global_seed
from comfyui_rollout.diffusion.share import dealt_evenly
from comfyui_rollout.models.families import UNet
from comfyui_rollout.nodes.rollouts.loss import DiffusionLoss
from comfyui_rollout.nodes.rollouts.rollout import Rollout
from comfyui_rollout.nodes.rollouts.schedule import NoisyBatch
from comfyui_rollout.runs.fit import fit
from comfyui_rollout.runs.looks import Tell
from comfyui_rollout.training.optimizers import OptimizerSettings
from comfyui_rollout.training.stream import Stream
from report import conclude, table
from torch import Tensor

EACH = 8
PLAN = RolloutPlan(max_step_offset=10, probability=1.0, step_size=20.0)
PROCESSES = (8, 64, 256, 1024)
STEPS = 40
"""Training steps that are simulated."""
RESULT = "seconds a step: "


def network(width: int = 32) -> UNet:
    with global_seed(0):
        return UNet.create(channels=1, size=8, classes=10, width=width, depth=2)


def forward_costs() -> list[float]:
    """Seconds of a forward of 0..8 items, without gradient: the least of several."""
    live, costs = network(), [0.0]
    for count in range(1, EACH + 1):
        x, timestep, told = torch.randn(count, 1, 8, 8), torch.full((count,), 500.0), torch.zeros(count).long()
        with torch.no_grad():
            costs.append(min(seconds(lambda: live(x, timestep, {"label": told})) for _ in range(15)))  # noqa: B023
    return costs


def seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def rollout_time(lengths: Tensor, costs: Sequence[float]) -> float:
    """What a process takes for a ragged rollout: one forward a step, of those that are still under way."""
    return sum(costs[int((lengths > step).sum())] for step in range(int(lengths.max())))


def waiting(processes: int, costs: Sequence[float]) -> tuple[float, float, float]:
    """Seconds of a step for which a process waits on average, dealt as they come and longest first; and of its work."""
    naive, even, work = [], [], []
    schedule = FlowMatching()
    for step in range(STEPS):
        random = generator(0, "scaling", processes, step)
        timestep = schedule.sample_timesteps(processes * EACH, random)
        lengths = PLAN.draw(timestep, schedule, step, random).lengths
        for found, hands in ((naive, lengths.chunk(processes)), (even, hands_of(lengths, processes))):
            times = [rollout_time(hand, costs) for hand in hands]
            found.append(max(times) - statistics.mean(times))
            work.append(statistics.mean(times))
    return statistics.mean(naive), statistics.mean(even), statistics.mean(work)


def hands_of(lengths: Tensor, processes: int) -> list[Tensor]:
    return [lengths[places] for places in dealt_evenly(lengths, processes)]


def train(steps: int) -> float:
    """Seconds of a training step of this process, with the others that there are: of ten steps, the fastest."""
    torch.set_num_threads(1)
    live, digits = network(64), Digits()
    data = Stream(next_batch, {"dataset": digits, "batch_size": 32}, "1", "Digits", about=digits.info)
    about = type("About", (), {"classes": 10, "null_class": False, "pretrained": None})()
    model = Stream(lambda step: live, {}, "4", "Model", about=about)
    noisy = NoisyBatch().build(unique_id="5", dataset=data, schedule=FlowMatching())[0]
    rolled = Rollout().build(
        unique_id="6", batch=noisy, model=model, max_step_offset=5, probability=0.25, sampler="unipc", order=2,
        step_size=10.0, strategy="uniform", start_step=0, ramp_steps=0, prob_start=0.0, prob_end=0.0,
        ramp_shape="linear",
    )["result"][0]  # fmt: skip
    loss = DiffusionLoss().build(
        unique_id="7", batch=rolled, model=model, loss_type="mse", huber_c=0.1, snr_gamma=0.0, target="original"
    )["result"][0]
    speeds: list[float] = []

    def tell(rows: list[dict[str, float]]) -> None:
        if rows and rows[-1]["steps_per_second"]:
            speeds.append(1 / rows[-1]["steps_per_second"])

    fit(loss, model, OptimizerSettings(learning_rate=1e-4), steps=steps, device="cpu", looks=[Tell(tell)])
    return min(speeds[1:])


def started(launcher: Sequence[str], steps: int) -> float:
    """The same, in a program of its own."""
    command = [sys.executable, *launcher, str(Path(__file__).resolve()), "--worker", "--steps", str(steps)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    said = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    found = [line for line in said.stdout.splitlines() if RESULT in line]
    if not found:
        raise SystemExit(said.stderr)
    return float(found[0].rpartition(RESULT)[2])


TORCHRUN = ("-m", "torch.distributed.run", "--standalone")
ACCELERATE = ("-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1", "--num_machines", "1",
              "--mixed_precision", "no", "--dynamo_backend", "no")  # fmt: skip


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--steps", type=int, default=60)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.worker:
        found = train(options.steps)
        if os.environ.get("RANK", "0") == "0":
            print(f"{RESULT}{found}", flush=True)
        return 0
    torch.set_num_threads(1)
    costs = forward_costs()
    rows, figures = [], {}
    for processes in PROCESSES:
        naive, even, work = waiting(processes, costs)
        rows.append([processes, 1e3 * work, 1e3 * naive, 1e3 * even, even / naive])
        figures[f"waiting_at_{processes}"] = even / naive
    table(["processes", "rollout ms", "waiting ms, as they come", "longest first", "of it"], rows)
    rounds = [
        (started((), options.steps), started(ACCELERATE, options.steps),
         started([*TORCHRUN, "--nproc-per-node=2"], options.steps))
        for _ in range(options.rounds)
    ]  # fmt: skip
    alone, launched, two = (min(values) for values in zip(*rounds, strict=True))
    table(
        ["", "ms a step"],
        [["one process", 1e3 * alone], ["started by Accelerate", 1e3 * launched], ["two processes", 1e3 * two]],
    )
    figures |= {"efficiency_of_two": alone / two, "accelerate_overhead": launched / alone}
    at_most = {"waiting_at_64": 0.35, "accelerate_overhead": 1.03, "efficiency_of_two": 1.1}
    return conclude(figures, at_most, {"efficiency_of_two": 0.85, "accelerate_overhead": 0.9})


if __name__ == "__main__":
    sys.exit(main())
