"""Which target for rolled-out latents? Digits, the quickstart's U-Net, equal time for every arm.

Every arm trains as long as 1,000 teacher-forced steps take: what its rollouts cost is measured first, step against step
in turn, and it gets as many fewer steps. Then 1,000 images are sampled at 5, 10, 20 and 50 Euler and UniPC steps and
compared with the real digits: Frechet distance in the features of a classifier. Results are kept in a file of one line
per (arm, seed), so that the benchmark can be stopped and goes on where it was.

    python benchmarks/targets.py [--minutes 9] [--arms teacher_forcing trajectory] [--seeds 0 1] [--only-table]

Bounds: the trajectory target, as in workflows/rollout_trajectory_digits.json, is at least as good as teacher forcing at
5 and 10 Euler steps and at most 5% worse at 20 and 50 (means over the same seeds).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from comfyui_rollout.diffusion import seeds
from comfyui_rollout.diffusion.schedules import FlowMatching
from comfyui_rollout.diffusion.solvers import solver
from comfyui_rollout.models.model import Model
from comfyui_rollout.nodes import NODE_CLASS_MAPPINGS as NODES
from comfyui_rollout.runs.sampling import sample
from comfyui_rollout.training.loop import Trainer, averaged, training_mode
from comfyui_rollout.training.optimizers import OptimizerSettings
from comfyui_rollout.training.stream import Run, Step, Stream
from digit_judge import DigitJudge
from report import conclude, table

BUDGET = 1000
"""Teacher-forced steps whose time each arm may use."""
BATCH, COUNT = 64, 1000
COLUMNS = [(name, steps) for name in ("euler", "unipc") for steps in (5, 10, 20, 50)]
RESULTS = Path(__file__).parent / "results" / "targets.jsonl"


@dataclass(frozen=True)
class Arm:
    """One way to train; rollouts begin when ``start`` of the steps are done."""

    rollout: dict[str, Any] = field(default_factory=dict)
    target: str = "original"
    reflexflow: str = "disable"
    start: float = 0.75
    reference_steps: int = 2
    reference_sampler: str = "unipc"
    reference_weights: str = "live"
    like: str = ""
    """A control: trained for as many steps as that arm can pay for, but without its rollouts."""


def trajectory(share: float, size: float, largest: float = 0.0, offset: int = 1, **options: Any) -> Arm:
    """``share`` of the items rolled out; a uniform length of 0..offset leaves 1/(offset+1) of the chosen ones at 0."""
    probability = share * (offset + 1) / offset
    rollout = {"max_step_offset": offset, "probability": probability, "step_size": size, "step_size_max": largest}
    return Arm(rollout, "trajectory", **options)


PLAIN = {"max_step_offset": 5, "probability": 0.3, "step_size": 20.0}
ARMS = {
    "teacher_forcing": Arm(),
    "original": Arm(PLAIN, "original"),
    "clean": Arm(PLAIN, "clean"),
    "reflexflow": Arm(PLAIN, "original", "enable"),
    "trajectory": trajectory(0.25, 200.0, start=0.85, reference_steps=1, reference_weights="ema"),
    "teacher_forcing_fewer": Arm(like="trajectory"),
    "trajectory_100": trajectory(0.25, 100.0),
    "trajectory_eighth": trajectory(0.125, 100.0),
    "trajectory_late": trajectory(0.25, 100.0, start=0.9),
    "trajectory_half_late": trajectory(0.5, 100.0, start=0.9),
    "trajectory_range": trajectory(0.25, 20.0, 200.0),
    "trajectory_50": trajectory(0.25, 50.0),
    "trajectory_ema": trajectory(0.25, 100.0, reference_weights="ema"),
    "trajectory_euler_4": trajectory(0.25, 100.0, reference_steps=4, reference_sampler="euler"),
}


def streams(arm: Arm, start_step: int) -> tuple[Stream, Stream]:
    """The quickstart's graph with this arm's rollout and loss: (loss, model)."""
    (data,) = NODES["RolloutDigitsDataset"]().build("data", BATCH, 8)["result"]
    (schedule,) = NODES["RolloutFlowMatchingSchedule"]().build("uniform")
    (model,) = NODES["RolloutNewModel"]().build("model", data, "unet", 32, 2, True)
    (batch,) = NODES["RolloutNoisyBatch"]().build("noisy", dataset=data, schedule=schedule)
    options = {"max_step_offset": 0, "start_step": start_step, **arm.rollout}
    (batch,) = NODES["Rollout"]().build("rollout", batch, model, "euler", 1, **options)["result"]
    names = ("reference_steps", "reference_sampler", "reference_weights")
    reference = {name: getattr(arm, name) for name in names}
    weights = {"alpha": 1.0, "beta1": 1.0, "beta2": 1.0, "objective": "spec", "target": arm.target, **reference}
    (loss,) = NODES["RolloutReflexFlowLoss"]().build("loss", batch, arm.reflexflow, model=model, **weights)["result"]
    return loss, model


def trainer(arm: Arm, start_step: int, steps: int, seed: int) -> tuple[Trainer, Model]:
    loss, model = streams(arm, start_step)
    run = Run(loss, seed=seed)
    settings = OptimizerSettings(learning_rate=2e-3, lr_schedule="cosine", warmup_steps=50)
    live: Model = run.value(model)
    return Trainer(run, loss, live.network, settings, steps, ema_decay=0.99), live


def extra_cost(arm: Arm, rounds: int = 30) -> float:
    """How much longer a step with rollouts takes than a teacher-forced one: the median ratio of neighbours, minus 1."""
    if not arm.rollout:
        return 0.0
    plain, rolling = (trainer(each, 0, 1000, 0)[0] for each in (Arm(), arm))
    ratios = []
    for number in range(rounds):
        begun = time.process_time()
        plain.update(number)
        between = time.process_time()
        rolling.update(number)
        ratios.append((time.process_time() - between) / (between - begun))
    return statistics.median(ratios[5:]) - 1


def train(arm: Arm, steps: int, seed: int) -> tuple[Run, Model]:
    learner, live = trainer(arm, round(arm.start * steps), steps, seed)
    for number in range(steps):
        with training_mode(), seeds.global_seed(seeds.derive(seed, "step", number)):
            step: Step = learner.update(number)
    if not torch.isfinite(step.metrics["loss"]):
        raise SystemExit(f"an arm diverged: {arm}")
    return learner.run, live


def distances(run: Run, live: Model, judge: DigitJudge) -> dict[str, float]:
    labels = torch.arange(COUNT) % 10
    found = {}
    with averaged(run, live.network):
        for name, steps in COLUMNS:
            generator = torch.Generator().manual_seed(1)
            told = {"label": labels}
            options = {"count": COUNT, "steps": steps, "conditioning": told, "generator": generator}
            latents = sample(live, FlowMatching(), solver(name), **options)
            found[f"{name}_{steps}"] = judge.frechet_distance(latents.flatten(1).double().numpy())
    return found


def kept(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def missing(arms: list[str], wanted: list[int], done: list[dict[str, Any]]) -> Iterator[tuple[str, int]]:
    there = {(row["arm"], row["seed"]) for row in done}
    return ((arm, seed) for seed in wanted for arm in arms if (arm, seed) not in there)


def measure(options: argparse.Namespace, judge: DigitJudge) -> None:
    """Run what is missing until the time is up; every line is kept as soon as it is there."""
    until = time.monotonic() + 60 * options.minutes
    costs = {row["arm"]: row["extra_cost"] for row in kept(options.results)}
    for name, seed in list(missing(options.arms, options.seeds, kept(options.results))):
        if time.monotonic() > until:
            print("time is up; run again to go on")
            return
        arm = ARMS[name]
        paid = arm.like or name
        costs.setdefault(paid, extra_cost(ARMS[paid]))
        steps = round(BUDGET / (1 + costs[paid] * (1 - ARMS[paid].start)))
        begun = time.perf_counter()
        run, live = train(arm, steps, seed)
        seconds = time.perf_counter() - begun
        row = {"arm": name, "seed": seed, "steps": steps, "extra_cost": costs[paid], "seconds": seconds}
        options.results.parent.mkdir(exist_ok=True)
        with options.results.open("a") as file:
            file.write(json.dumps(row | distances(run, live, judge)) + "\n")
        print(name, seed, "done", flush=True)


def mean_of(rows: dict[int, dict[str, Any]], name: str) -> float:
    return statistics.mean(row[name] for row in rows.values())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--only-table", action="store_true")
    options = parser.parse_args()
    judge = DigitJudge()
    if not options.only_table:
        measure(options, judge)
    done = kept(options.results)
    names = [f"{name}_{steps}" for name, steps in COLUMNS]
    rows, over = [], {}
    for arm in ARMS:
        mine = {row["seed"]: row for row in done if row["arm"] == arm}
        # Seeds differ more than arms do: an arm is only compared with teacher forcing on the very same seeds.
        plain = {row["seed"]: row for row in done if row["arm"] == "teacher_forcing" and row["seed"] in mine}
        if mine and mine.keys() == plain.keys():
            over[arm] = {name: mean_of(mine, name) / mean_of(plain, name) for name in names}
            steps = round(mean_of(mine, "steps"))
            rows.append([arm, len(mine), steps, *(mean_of(mine, name) for name in names)])
            rows.append(["over teacher_forcing", "", "", *over[arm].values()])
    table(["arm", "seeds", "steps", *names], rows)
    if not {"teacher_forcing", "trajectory"} <= set(over):
        print("not all arms are there yet")
        return 1
    figures, at_most = {"classifier_accuracy": judge.accuracy}, {}
    for steps, bound in {5: 1.0, 10: 1.0, 20: 1.05, 50: 1.05}.items():
        column, name = f"euler_{steps}", f"trajectory_over_teacher_forcing_at_{steps}"
        figures[name] = over["trajectory"][column]
        at_most[name] = bound
    return conclude(figures, at_most=at_most, at_least={"classifier_accuracy": 0.95})


if __name__ == "__main__":
    sys.exit(main())
