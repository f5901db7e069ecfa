"""Does training on one's own outputs pay? Three data sets, several seeds, equal compute; the table is docs/evidence.md.

A base model is trained with teacher forcing. Each arm then tunes a copy of it, for as long as ``tuning`` teacher-forced
steps take; teacher forcing itself is one of them. Samples are judged at 4, 8, 16 and 32 evaluations of the network. Every
result is a line of JSON as soon as it is there; run it again and it goes on with what is missing. The same seeds give
the same numbers on the same machine.

    python benchmarks/evidence/run.py [--minutes 9] [--data digits mnist emoji] [--seeds 0 1 2] [--budgets short long]
        [--arms teacher_forcing ...] [--only-report]
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from arms import ARMS, TRAJECTORY, Arm
from comfyui_rollout.diffusion.exposure_bias import measure, summary
from comfyui_rollout.diffusion.rollouts.guidance import Guidance
from comfyui_rollout.diffusion.schedules import FlowMatching
from comfyui_rollout.diffusion.solvers import solver
from comfyui_rollout.models.model import NO_CLASS, Model
from comfyui_rollout.models.saving import load_model
from comfyui_rollout.runs.sampling import sample
from graphs import bypassed, prompt_of, replaced, train
from judge import Judge
from pictures import Pictures, picture_folder, pictures

HERE = Path(__file__).parent
RUNS, RESULTS = HERE / "runs", HERE.parent / "results" / "evidence.jsonl"
COUNT, AT_ONCE = 1000, 250
EVALUATIONS = (4, 8, 16, 32)
SOLVERS = ("euler", "dpm", "unipc")


@dataclass(frozen=True)
class Data:
    """A data set, the network for it, and how long that is trained."""

    size: int
    network: tuple[str, ...]
    base: dict[str, int]
    """Teacher-forced steps of the base model, by budget."""
    tuning: int
    """Teacher-forced steps whose time a tuning takes."""


DATA = {
    "digits": Data(8, (), {"short": 1000, "long": 3000}, 350),
    "mnist": Data(16, ("NewModel.width=16", "NewModel.depth=3"), {"short": 1000, "long": 3000}, 350),
    "emoji": Data(16, ("NewModel.width=24", "NewModel.depth=3"), {"short": 1000, "long": 3000}, 350),
}
LABELS = ("NewModel.null_class=true", "NoisyBatch.label_dropout=0.1")


@cache
def judged(name: str) -> tuple[Pictures, Judge]:
    data = pictures(name, DATA[name].size)
    return data, Judge(data)


def workflow_on(name: str, workflow: str) -> dict[str, Any]:
    """A shipped workflow on a data set."""
    prompt = prompt_of(workflow)
    if name == "digits":
        return prompt
    inputs = {"folder": str(picture_folder(name, DATA[name].size)), "size": DATA[name].size, "batch_size": 64}
    inputs |= {"color": "L" if name == "mnist" else "RGB", "repeats": 1, "crop": "center", "flip": False}
    return replaced(prompt, "RolloutDigitsDataset", "RolloutImageFolderDataset", **inputs, background="white")


def base_model(name: str, seed: int, budget: str) -> Path:
    """The folder of the teacher-forced model that all arms tune; trained when it is first asked for."""
    kept = RUNS / f"base_{name}_{budget}_{seed}"
    if not kept.is_dir():
        steps = DATA[name].base[budget]
        changes = (
            *LABELS,
            *DATA[name].network,
            f"OptimizerStep.steps={steps}",
            f"OptimizerStep.seed={seed}",
            "OptimizerStep.ema_decay=0.995",
        )
        folder, cost = train(
            bypassed(workflow_on(name, TRAJECTORY), "Rollout", "batch"),
            changes,
            RUNS / "base",
            f"{name}_{budget}_{seed}",
        )
        note = {"steps": steps, "forwards": cost.forwards, "seconds": cost.seconds}
        (folder / "model" / "cost.json").write_text(json.dumps(note))
        (folder / "model").rename(kept)
        shutil.rmtree(folder)
    return kept


def tuned(arm: Arm, name: str, seed: int, budget: str) -> tuple[Model, dict[str, Any]]:
    """The model that the arm makes of the base, and what that has cost."""
    base = base_model(name, seed, budget)
    prompt = replaced(workflow_on(name, arm.workflow), "RolloutNewModel", "RolloutLoadModel", folder=str(base))
    prompt = prompt if arm.rolls else bypassed(prompt, "Rollout", "batch")
    steps = round(DATA[name].tuning / arm.price)
    changes = (
        *arm.changes,
        LABELS[1],
        f"OptimizerStep.steps={steps}",
        f"OptimizerStep.seed={seed + 1000}",
        "OptimizerStep.ema_decay=0.98",
        "Optimizer.learning_rate=0.001",
        "Optimizer.lr_schedule=cosine",
        "Optimizer.warmup_steps=10",
    )
    folder, cost = train(prompt, changes, RUNS / "tuned", "tuned")
    model = load_model(folder / "model")
    shutil.rmtree(folder)
    return model, {"steps": steps, "forwards": cost.forwards, "seconds": round(cost.seconds, 2)}


def samples(model: Model, kind: str, steps: int, labels: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
    """Pictures of these classes, always from the same noise."""
    generator, parts = torch.Generator().manual_seed(1), []
    for part in labels.split(AT_ONCE):
        options: dict[str, Any] = {"count": len(part), "steps": steps, "generator": generator}
        options["guidance"] = Guidance(scale, negative={"label": torch.tensor([NO_CLASS])})
        parts.append(sample(model, FlowMatching(), solver(kind), conditioning={"label": part}, **options))
    return torch.cat(parts)


def verdicts(model: Model, name: str, columns: list[tuple[str, int]]) -> dict[str, dict[str, float]]:
    """By solver and evaluations; with guidance a step is two."""
    data, judge = judged(name)
    # As many of each class as there are in the data, spread evenly.
    labels = data.labels.sort().values[torch.linspace(0, len(data.labels) - 1, COUNT).round().long()]
    found = {f"{kind}_{n}": judge.verdict(samples(model, kind, n, labels)) for kind, n in columns}
    for n in (8, 16, 32):
        if n == 8 or len(columns) == len(SOLVERS) * len(EVALUATIONS):
            found[f"guided_{n}"] = judge.verdict(samples(model, "unipc", n // 2, labels, 1.5))
    return {key: {what: round(value, 5) for what, value in verdict.items()} for key, verdict in found.items()}


def probed(model: Model, name: str) -> dict[str, float]:
    """The Exposure Bias Probe along 8 Euler steps: mean absolute log ratios of sampled over teacher-forced latents."""
    data, _ = judged(name)
    chosen = torch.linspace(0, len(data.labels) - 1, 256).round().long()
    with model.evaluating():
        path = measure(
            model,
            FlowMatching(),
            data.latents[chosen],
            {"label": data.labels[chosen]},
            solver("euler"),
            steps=8,
            generator=torch.Generator().manual_seed(2),
        )
    return {what: round(value, 4) for what, value in summary(path).items()}


def kept(path: Path = RESULTS) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def missing(options: argparse.Namespace) -> Iterator[tuple[str, str, int, str]]:
    """Seed by seed, so that what is there can be compared at any time."""
    there = {(row["data"], row["budget"], row["seed"], row["arm"]) for row in kept()}
    wanted = (
        (name, budget, seed, arm)
        for name in options.data
        for budget in options.budgets
        for seed in options.seeds
        for arm in options.arms
    )
    return (each for each in wanted if each not in there)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA))
    parser.add_argument("--budgets", nargs="+", choices=("short", "long"), default=["short", "long"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--quick", action="store_true", help="judge with Euler, and UniPC at 8 evaluations, alone")
    parser.add_argument("--only-report", action="store_true")
    options = parser.parse_args()
    until = time.monotonic() + 60 * options.minutes
    columns = [(kind, n) for kind in SOLVERS for n in EVALUATIONS if kind == "euler" or n == 8 or not options.quick]
    for name, budget, seed, arm in [] if options.only_report else list(missing(options)):
        if time.monotonic() > until:
            print("time is up; run again to go on")
            return 1
        model, cost = tuned(ARMS[arm], name, seed, budget)
        row = {"data": name, "budget": budget, "seed": seed, "arm": arm, **cost}
        row |= {
            "accuracy": round(judged(name)[1].accuracy, 4),
            "probe": probed(model, name),
            **verdicts(model, name, columns),
        }
        RESULTS.parent.mkdir(exist_ok=True)
        with RESULTS.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(
            name,
            budget,
            seed,
            arm,
            cost,
            {key: value["fd"] for key, value in row.items() if isinstance(value, dict) and "fd" in value},
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
