"""Which target for rolled-out latents? Digits, the quickstart's U-Net, equal time for every arm.

Every arm trains as long as 1,000 teacher-forced steps take (or ``--budget``): what its rollouts cost is measured first,
step against step in turn, and it gets as many fewer steps. Then 1,000 images are sampled at 5, 10, 20 and 50 Euler and
UniPC steps and compared with the real digits: Frechet distance in the features of a classifier. Results are kept in a
file of one line per (arm, seed, budget). When ``--minutes`` are up it stops, also in the middle of an arm, and goes on
exactly there when it is run again.

    python benchmarks/targets.py [--minutes 9] [--arms teacher_forcing trajectory] [--seeds 0 1] [--budget 1000]
        [--only-table]

Bounds: the trajectory target with an averaged reference is at least as good as teacher forcing at 5 and 10 Euler steps
and at most 5% worse at 20 and 50 (means over the same seeds). workflows/rollout_trajectory_digits.json has a frozen
one, which evidence/ measures.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from comfyui_rollout.diffusion.rollouts.guidance import Guidance
from comfyui_rollout.diffusion.schedules import FlowMatching
from comfyui_rollout.diffusion.solvers import solver
from comfyui_rollout.models.model import NO_CLASS, Model
from comfyui_rollout.nodes import NODE_CLASS_MAPPINGS as NODES
from comfyui_rollout.runs.sampling import sample
from comfyui_rollout.training.loop import Trainer, prepare
from comfyui_rollout.training.optimizers import OptimizerSettings
from comfyui_rollout.training.options import TrainingOptions
from comfyui_rollout.training.state import STATE, find_state, save_state
from comfyui_rollout.training.stream import Run, Stream
from comfyui_rollout.training.weights import averaged
from digit_judge import Array, DigitJudge
from report import conclude, table

BUDGET = 1000
"""Teacher-forced steps whose time each arm may use."""
BATCH, COUNT = 64, 1000
LABELS = torch.arange(COUNT) % 10
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
    target_sampler: str = "euler"
    sampler: str = "euler"
    order: int = 1
    noisy: dict[str, Any] = field(default_factory=dict)
    """What Noisy Batch does beside."""
    reference_guidance: float = 1.0
    null_class: bool = False
    """Whether the network knows a class that stands for none, which a tenth of the labels becomes: for guidance."""
    lr_schedule: str = "cosine"
    like: str = ""
    """A control: trained for as many steps as that arm can pay for, but without its rollouts."""


def trajectory(share: float, size: float, largest: float = 0.0, offset: int = 1, **options: Any) -> Arm:
    """``share`` of the items rolled out; a uniform length of 0..offset leaves 1/(offset+1) of the chosen ones at 0."""
    probability = share * (offset + 1) / offset
    rollout = {"max_step_offset": offset, "probability": probability, "step_size": size, "step_size_max": largest}
    return Arm(rollout, "trajectory", **options)


def chains(
    share: float, size: float, largest: float = 0.0, from_noise: bool = True, offset: int = 0, **options: Any
) -> Arm:
    """Persistent chains on ``share`` of the items, over the whole path; the reference is Heun, on the average."""
    rollout = {"probability": share, "step_size": size, "step_size_max": largest, "rollout": "persistent"}
    rollout |= {"max_step_offset": offset or round(1000 / size) - 1, "from_noise": from_noise}
    return Arm(rollout, "trajectory", **{**HEUN, **options})


HEUN = {"reference_steps": 1, "reference_sampler": "heun", "reference_weights": "ema"}
FROZEN = {**HEUN, "reference_weights": "frozen"}
UNIPC = {"sampler": "unipc", "order": 2, "target_sampler": "rollout"}
SOAR = {"max_step_offset": 1, "probability": 0.5, "step_size": 25.0, "keep_base": True}
SOAR |= {"renoise": "same_noise", "renoise_levels": 1}
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
    # Fresh single steps, and a reference that is better than the student.
    "heun_100": trajectory(0.25, 100.0, **HEUN),
    "heun_200": trajectory(0.25, 200.0, **HEUN),
    "heun_range": trajectory(0.25, 50.0, 200.0, **HEUN),
    "heun_200_late": trajectory(0.25, 200.0, start=0.85, **HEUN),
    # A reference that stands still.
    "frozen_100": trajectory(0.25, 100.0, start=0.7, **FROZEN),
    # Chains over the whole path, with Euler's target.
    "chains_100": chains(0.25, 100.0),
    "chains_200": chains(0.25, 200.0),
    "chains_200_15": chains(0.15, 200.0),
    "chains_200_half": chains(0.25, 200.0, start=0.5),
    "chains_200_late": chains(0.25, 200.0, start=0.85),
    "chains_200_levels": chains(0.25, 200.0, from_noise=False),
    # The target of the rollout's own sampler.
    "unipc_100": chains(0.25, 100.0, **UNIPC),
    "unipc_200": chains(0.25, 200.0, **UNIPC),
    "unipc_200_15": chains(0.15, 200.0, **UNIPC),
    "unipc_200_late": chains(0.25, 200.0, start=0.85, **UNIPC),
    "unipc_200_levels": chains(0.25, 200.0, from_noise=False, **UNIPC),
    "unipc_range": chains(0.25, 100.0, largest=250.0, offset=9, **UNIPC),
    "dpm_200": chains(0.25, 200.0, **{**UNIPC, "sampler": "dpm"}),
    # Is it the learning rate, which falls to nothing, that leaves the target of one's own sampler little to mend?
    "teacher_forcing_constant": Arm(lr_schedule="constant"),
    "unipc_200_constant": chains(0.25, 200.0, **{**UNIPC, "lr_schedule": "constant"}),
    # SOAR: copies beside their items, with and without guidance in the rollout; its control is guided_control.
    "soar": Arm(SOAR, "clean", start=0.0),
    "soar_late": Arm(SOAR, "clean"),
    # The mixture of both: SOAR's copies beside their items, which learn to land on the reference's path.
    "soar_trajectory": Arm({**SOAR, "step_size": 200.0}, "trajectory", **HEUN),
    "guided_control": Arm(null_class=True),
    "soar_guided": Arm({**SOAR, "guidance": 2.0}, "clean", start=0.0, null_class=True),
    "soar_guided_late": Arm({**SOAR, "guidance": 2.0}, "clean", null_class=True),
    # Remedies that ask the network nothing.
    "input_perturbation": Arm(noisy={"input_perturbation": 0.1}),
    "mixflow": Arm(noisy={"mixflow": 0.8}),
    "noise_offset": Arm(noisy={"noise_offset": 0.05}),
}


def streams(arm: Arm, start_step: int) -> tuple[Stream, Stream]:
    """The quickstart's graph with this arm's rollout and loss: (loss, model)."""
    (data,) = NODES["RolloutDigitsDataset"]().build("data", BATCH, 8)["result"]
    (schedule,) = NODES["RolloutFlowMatchingSchedule"]().build("uniform")
    (model,) = NODES["RolloutNewModel"]().build("model", data, "unet", 32, 2, True, arm.null_class)
    noisy = {**arm.noisy, "label_dropout": 0.1 if arm.null_class else 0.0}
    (batch,) = NODES["RolloutNoisyBatch"]().build("noisy", dataset=data, schedule=schedule, **noisy)
    options = {"max_step_offset": 0, "start_step": start_step, **arm.rollout}
    (batch,) = NODES["Rollout"]().build("rollout", batch, model, arm.sampler, arm.order, **options)["result"]
    names = ("reference_steps", "reference_sampler", "reference_weights", "target_sampler", "reference_guidance")
    reference = {name: getattr(arm, name) for name in names}
    weights = {"alpha": 1.0, "beta1": 1.0, "beta2": 1.0, "objective": "spec", "target": arm.target, **reference}
    (loss,) = NODES["RolloutReflexFlowLoss"]().build("loss", batch, arm.reflexflow, model=model, **weights)["result"]
    return loss, model


def settings(arm: Arm) -> OptimizerSettings:
    return OptimizerSettings(learning_rate=2e-3, lr_schedule=arm.lr_schedule, warmup_steps=50)


def trainer(arm: Arm, start_step: int, steps: int, seed: int) -> tuple[Trainer, Model]:
    loss, model = streams(arm, start_step)
    run = Run(loss, seed=seed)
    live: Model = run.value(model)
    return Trainer(run, loss, live.network, settings(arm), steps, TrainingOptions(ema_decay=0.99)), live


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


def train(arm: Arm, steps: int, seed: int, until: float, folder: Path) -> tuple[Run, Model] | None:
    """The trained model, or None if the time was up before; then its state waits in the folder."""
    loss, model = streams(arm, round(arm.start * steps))
    run = Run(loss, seed=seed)
    state = find_state(folder) if (folder / STATE).is_dir() else None
    learner = prepare(loss, model, settings(arm), steps=steps, run=run, state=state, ema_decay=0.99)
    for step in learner.updates():
        if step.update % 50 == 0 and not torch.isfinite(step.metrics["loss"]):
            raise SystemExit(f"an arm diverged: {arm}")
        if time.monotonic() > until and learner.done < steps:
            folder.mkdir(parents=True, exist_ok=True)
            save_state(folder, learner)
            return None
    shutil.rmtree(folder, ignore_errors=True)
    return run, run.value(model)


def drawn(
    run: Run, live: Model, columns: Sequence[tuple[str, int]] = COLUMNS, scale: float = 1.0
) -> Iterator[tuple[str, Array]]:
    """Samples (n, 64) by each solver in so many steps, with guidance of that scale; always of the same noise."""
    with averaged(run, live.network):
        for name, steps in columns:
            generator = torch.Generator().manual_seed(1)
            options = {"count": COUNT, "steps": steps, "conditioning": {"label": LABELS}, "generator": generator}
            options["guidance"] = Guidance(scale, negative={"label": torch.tensor([NO_CLASS])})
            latents = sample(live, FlowMatching(), solver(name), **options)
            yield f"{name}_{steps}", latents.flatten(1).double().numpy()


def kept(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def missing(arms: list[str], wanted: list[int], done: list[dict[str, Any]]) -> Iterator[tuple[str, int]]:
    there = {(row["arm"], row["seed"]) for row in done}
    return ((arm, seed) for seed in wanted for arm in arms if (arm, seed) not in there)


def measure(options: argparse.Namespace, judge: DigitJudge) -> None:
    """Run what is missing until the time is up; every line is kept as soon as it is there."""
    until = time.monotonic() + 60 * options.minutes
    everything = kept(options.results)
    costs = {row["arm"]: row["extra_cost"] for row in everything}
    for name, seed in list(missing(options.arms, options.seeds, of_budget(everything, options.budget))):
        arm = ARMS[name]
        paid = arm.like or name
        costs.setdefault(paid, extra_cost(ARMS[paid]))
        steps = round(options.budget / (1 + costs[paid] * (1 - ARMS[paid].start)))
        begun = time.process_time()
        folder = options.results.parent / "unfinished" / f"{name}_{seed}_{options.budget}"
        note = folder / "cost.json"
        if note.is_file():  # in the middle of it nothing is measured anew
            costs[paid], steps, seconds = json.loads(note.read_text())
        else:
            seconds = 0.0
        trained = train(arm, steps, seed, until, folder)
        seconds += time.process_time() - begun
        if trained is None:
            note.write_text(json.dumps([costs[paid], steps, seconds]))
            print("time is up; run again to go on")
            return
        row = {"arm": name, "seed": seed, "budget": options.budget, "steps": steps}
        row |= {"extra_cost": costs[paid], "seconds": seconds}
        row |= {column: judge.frechet_distance(made) for column, made in drawn(*trained)}
        options.results.parent.mkdir(exist_ok=True)
        with options.results.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(name, seed, "done", flush=True)


def of_budget(rows: list[dict[str, Any]], budget: int) -> list[dict[str, Any]]:
    return [row for row in rows if row.get("budget", BUDGET) == budget]


def mean_of(rows: dict[int, dict[str, Any]], name: str) -> float:
    return statistics.mean(row[name] for row in rows.values())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--budget", type=int, default=BUDGET, help="teacher-forced steps whose time each arm may use")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--only-table", action="store_true")
    options = parser.parse_args()
    judge = DigitJudge()
    if not options.only_table:
        measure(options, judge)
    done = of_budget(kept(options.results), options.budget)
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
