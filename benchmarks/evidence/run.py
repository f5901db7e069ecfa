"""Does training on one's own outputs pay? Three data sets, several seeds, equal compute; the table is docs/evidence.md.

A base model is trained with teacher forcing. Each arm then tunes a copy of it, for as long as ``tuning`` teacher-forced
steps take; teacher forcing itself is one of them. Samples are judged at 4, 8, 16 and 32 evaluations of the network.
Every result is a line of JSON as soon as it is there; run it again and it goes on with what is missing. The same seeds
give the same numbers on the same machine.

    python benchmarks/evidence/run.py [--minutes 9] [--data digits mnist emoji] [--seeds 0 1 2] [--budgets short long]
        [--arms teacher_forcing ...] [--quick]
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
from itertools import product
from pathlib import Path
from typing import Any

import torch
from arms import ARMS, TRAJECTORY
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
AT_ONCE, SCALE = 250, 1.5
COST = "cost.json"
EVALUATIONS = (4, 8, 16, 32)
SOLVERS = ("euler", "dpm", "unipc")


@dataclass(frozen=True)
class Data:
    """A data set, the network for it, and how long that is trained."""

    size: int
    network: tuple[str, ...]
    base: dict[str, int]
    """Teacher-forced steps of the base model, by budget."""
    samples: int
    """Pictures to judge, for each solver and number of evaluations."""
    tuning: int
    """Teacher-forced steps whose time a tuning takes; its learning rate falls to 0."""


DATA = {
    "digits": Data(8, (), {"short": 1000, "long": 3000}, 1000, 500),
    "mnist": Data(16, ("NewModel.width=16", "NewModel.depth=3"), {"short": 1000, "long": 3000}, 800, 500),
    "emoji": Data(16, ("NewModel.width=16", "NewModel.depth=3"), {"short": 1000, "long": 3000}, 800, 500),
}
TUNING = (
    "OptimizerStep.ema_decay=0.99",
    "Optimizer.learning_rate=0.001",
    "Optimizer.lr_schedule=cosine",
    "Optimizer.warmup_steps=20",
)
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
    """The folder of the teacher-forced model that all arms tune; trained when it is first asked for.

    Its learning rate does not fall: it is the beginning of a training whose end is still open. The averaged weights of
    the longer budget's run on its way are the shorter one's.
    """
    folder = RUNS / f"base_{name}_{seed}"
    if not folder.is_dir():
        lengths = sorted(DATA[name].base.values())
        changes = (
            *LABELS,
            *DATA[name].network,
            f"OptimizerStep.steps={lengths[-1]}",
            f"OptimizerStep.checkpoint_every={lengths[0]}",
            f"OptimizerStep.seed={seed}",
            "OptimizerStep.ema_decay=0.995",
            "Optimizer.lr_schedule=constant_with_warmup",
        )
        prompt = bypassed(workflow_on(name, TRAJECTORY), "Rollout", "batch")
        trained, _ = train(prompt, changes, RUNS / "base", f"{name}_{seed}")
        (trained / "model").rename(trained / "checkpoints" / f"step_{lengths[-1]:06}")
        (trained / "checkpoints").rename(folder)
        shutil.rmtree(trained)
    return folder / f"step_{DATA[name].base[budget]:06}"


def tuned(arm: str, name: str, seed: int, budget: str) -> Path:
    """The folder of the model that the arm makes of the base, with a note in it of what that has cost."""
    folder = RUNS / f"tuned_{name}_{budget}_{seed}" / arm
    if folder.is_dir():
        return folder
    chosen, base = ARMS[arm], base_model(name, seed, budget)
    prompt = replaced(workflow_on(name, chosen.workflow), "RolloutNewModel", "RolloutLoadModel", folder=str(base))
    prompt = prompt if chosen.rolls else bypassed(prompt, "Rollout", "batch")
    steps = round(DATA[name].tuning / chosen.price)
    changes = (
        *TUNING,
        *chosen.changes,
        LABELS[1],
        f"OptimizerStep.steps={steps}",
        f"OptimizerStep.seed={seed + 1000}",
    )
    trained, cost = train(prompt, changes, RUNS / "tuning", "tuned")
    note = {"steps": steps, "forwards": cost.forwards, "seconds": round(cost.seconds, 2)}
    (trained / "model" / COST).write_text(json.dumps(note))
    folder.parent.mkdir(exist_ok=True)
    (trained / "model").rename(folder)
    shutil.rmtree(trained)
    return folder


def samples(model: Model, kind: str, steps: int, labels: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
    """Pictures of these classes, always from the same noise."""
    generator, parts = torch.Generator().manual_seed(1), []
    for part in labels.split(AT_ONCE):
        options: dict[str, Any] = {"count": len(part), "steps": steps, "generator": generator}
        options["guidance"] = Guidance(scale, negative={"label": torch.tensor([NO_CLASS])})
        parts.append(sample(model, FlowMatching(), solver(kind), conditioning={"label": part}, **options))
    return torch.cat(parts)


def columns_of(options: argparse.Namespace) -> list[str]:
    """Where samples are judged; all that the tables show, or the few that a first look needs."""
    if options.quick:
        return ["euler_4", "euler_8", "euler_16", "euler_32", "dpm_8", "unipc_8"]
    return [*(f"{kind}_{n}" for kind in SOLVERS for n in EVALUATIONS), "guided_8", "guided_16", "guided_32"]


def verdict(model: Model, name: str, column: str) -> dict[str, float]:
    """With guidance a step is two evaluations; it is UniPC's."""
    data, judge = judged(name)
    kind, _, evaluations = column.partition("_")
    # As many of each class as there are in the data, spread evenly.
    labels = data.labels.sort().values[torch.linspace(0, len(data.labels) - 1, DATA[name].samples).round().long()]
    if kind == "guided":
        made = samples(model, "unipc", int(evaluations) // 2, labels, SCALE)
    else:
        made = samples(model, kind, int(evaluations), labels)
    found = {what: round(value, 5) for what, value in judge.verdict(made).items()}
    return found | {"right": round(judge.right(made, labels), 4)}


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


def kept(path: Path = RESULTS) -> dict[tuple[str, str, int, str], dict[str, Any]]:
    """All results by data set, budget, seed and arm; several lines of one of them are put together."""
    found: dict[tuple[str, str, int, str], dict[str, Any]] = {}
    for line in path.read_text().splitlines() if path.is_file() else ():
        row = json.loads(line)
        found.setdefault((row["data"], row["budget"], row["seed"], row["arm"]), {}).update(row)
    return found


def missing(options: argparse.Namespace) -> Iterator[tuple[str, str, int, str, list[str]]]:
    """Seed by seed, so that what is there can be compared at any time; with the columns that are not there yet."""
    there = kept()
    for seed, name, budget, arm in product(options.seeds, options.data, options.budgets, options.arms):
        row = there.get((name, budget, seed, arm), {})
        if columns := [column for column in columns_of(options) if column not in row]:
            yield name, budget, seed, arm, columns


def measure_arm(name: str, budget: str, seed: int, arm: str, columns: list[str]) -> dict[str, Any]:
    folder = tuned(arm, name, seed, budget)
    model, cost = load_model(folder), json.loads((folder / COST).read_text())
    row = {"data": name, "budget": budget, "seed": seed, "arm": arm, **cost}
    row |= {"accuracy": round(judged(name)[1].accuracy, 4), "probe": probed(model, name)}
    return row | {column: verdict(model, name, column) for column in columns}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA))
    parser.add_argument("--budgets", nargs="+", choices=("short", "long"), default=["short", "long"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--quick", action="store_true", help="judge with Euler, and with the others at 8 evaluations")
    options = parser.parse_args()
    torch.set_num_threads(1)
    until = time.monotonic() + 60 * options.minutes
    for name, budget, seed, arm, columns in list(missing(options)):
        if time.monotonic() > until:
            print("time is up; run again to go on")
            return 1
        row = measure_arm(name, budget, seed, arm, columns)
        RESULTS.parent.mkdir(exist_ok=True)
        with RESULTS.open("a") as file:
            file.write(json.dumps(row) + "\n")
        shown = {column: round(row[column]["fd"], 3) for column in columns}
        print(name, budget, seed, arm, row["steps"], row["forwards"], row["seconds"], shown, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
