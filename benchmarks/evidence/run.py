"""Does training on one's own outputs pay? Three data sets, several seeds, equal compute; tables in docs/evidence.md.

For each data set, seed and budget one model is trained with teacher forcing. Every arm goes on from that training's
state at 70% of its steps, to its end, as the workflow with ``start`` 0.7 would. What arms cost more is set against a
longer teacher forcing. Samples are judged at 4, 8, 16 and 32 evaluations of the network. Every result is a line of JSON
as soon as it is there; run it again and it goes on with what is missing. The same seeds give the same numbers on the
same machine.

    python benchmarks/evidence/run.py [--minutes 9] [--data digits mnist emoji] [--seeds 0 1 2] [--budgets short long]
        [--arms teacher_forcing ...] [--all-columns]

Where a GPU is at hand, the larger networks too (`seconds` are then those of the clock; all of it needs one such GPU):

    python benchmarks/evidence/run.py --device cuda --precision bf16 --data mnist_large emoji_large --minutes 600
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
from arms import ARMS
from comfyui_rollout.diffusion.exposure_bias import measure, summary
from comfyui_rollout.diffusion.rollouts.guidance import UNGUIDED, Guidance
from comfyui_rollout.diffusion.schedules import FlowMatching
from comfyui_rollout.diffusion.solvers import solver
from comfyui_rollout.models.model import Model
from comfyui_rollout.models.saving import load_model
from comfyui_rollout.runs.sampling import sample
from graphs import bypassed, prompt_of, replaced, train
from judge import Judge
from pictures import Pictures, picture_folder, pictures

HERE = Path(__file__).parent
RUNS, RESULTS = HERE / "runs", HERE.parent / "results" / "evidence.jsonl"
AT_ONCE = 250
COST, PLAIN = "cost.json", "teacher_forcing"
COMMON = ("OptimizerStep.ema_decay=0.995",)
EVALUATIONS = (4, 8, 16, 32)
SOLVERS = ("euler", "dpm", "unipc")


@dataclass(frozen=True)
class Data:
    """A data set, the network for it, and how long that is trained."""

    pictures: str
    size: int
    changes: tuple[str, ...]
    budgets: dict[str, int]
    """Steps of the whole training."""
    samples: int
    """Pictures to judge, for each solver and number of evaluations."""
    batch: int = 64


BUDGETS = {"short": 1500, "long": 3000}
SMALL = ("NewModel.width=16", "NewModel.depth=3")
DIT = ("NewModel.family=dit", "NewModel.width=64", "NewModel.depth=7", "Optimizer.learning_rate=0.004")
LARGE = ("NewModel.width=64", "NewModel.depth=4", "Optimizer.learning_rate=0.0005")
DATA = {
    "digits": Data("digits", 8, (), BUDGETS, 1000),
    "digits_dit": Data("digits", 8, DIT, {"least": 700, **BUDGETS}, 1000),
    "mnist": Data("mnist", 16, SMALL, BUDGETS, 600, batch=32),
    "emoji": Data("emoji", 16, SMALL, BUDGETS, 600, batch=32),
    "mnist_large": Data("mnist", 32, LARGE, {"short": 10_000, "long": 20_000}, 5000, batch=128),
    "emoji_large": Data("emoji", 64, LARGE, {"short": 10_000, "long": 20_000}, 1600, batch=128),
}
START = 0.7
"""Where arms leave the common way, as a share of the training."""


@dataclass(frozen=True)
class Machine:
    """What trains, judges and samples, and in what the network computes while it is trained."""

    device: str = "cpu"
    precision: str = "fp32"

    def named(self, name: str) -> str:
        """What a data set is called in results and folders; those of a CPU in float32 have its plain name."""
        return name if self == CPU else f"{name}_{self.device}_{self.precision}"


CPU = Machine()


@cache
def real(name: str) -> Pictures:
    return pictures(DATA[name].pictures, DATA[name].size)


@cache
def judged(name: str, device: str = CPU.device) -> tuple[Pictures, Judge]:
    return real(name), Judge(real(name), device)


def workflow_on(name: str, workflow: str) -> dict[str, Any]:
    """A shipped workflow on a data set."""
    prompt, data = prompt_of(workflow), DATA[name]
    if data.pictures == "digits":
        return prompt
    inputs = {"folder": str(picture_folder(data.pictures, data.size)), "size": data.size, "batch_size": data.batch}
    inputs |= {"color": "L" if data.pictures == "mnist" else "RGB", "repeats": 1, "crop": "center", "flip": False}
    return replaced(prompt, "RolloutDigitsDataset", "RolloutImageFolderDataset", **inputs, background="white")


def trained(arm: str, name: str, seed: int, budget: str, machine: Machine = CPU) -> Path:
    """The folder of the model that the arm makes, with a note in it of what that has cost."""
    place = RUNS / f"{machine.named(name)}_{budget}_{seed}"
    folder = place / arm
    if folder.is_dir():
        return folder
    chosen, steps = ARMS[arm], DATA[name].budgets[budget]
    prompt = workflow_on(name, chosen.workflow)
    prompt = prompt if chosen.rolls else bypassed(prompt, "Rollout", "batch")
    changes = [*COMMON, *DATA[name].changes, f"OptimizerStep.steps={steps}", f"OptimizerStep.seed={seed}"]
    changes += [f"OptimizerStep.precision={machine.precision}"]
    at = round(START * steps)
    if arm != PLAIN:
        trained(PLAIN, name, seed, budget, machine)  # whose state it goes on from
    shutil.rmtree(RUNS / "unfinished", ignore_errors=True)  # of an arm that was stopped
    if arm != PLAIN:
        copy = shutil.copytree(place / "state", RUNS / "unfinished" / "rollout" / "tuned", dirs_exist_ok=True)
        changes += [*chosen.changes, f"OptimizerStep.resume={copy}@{at}"]
    else:
        changes += [f"OptimizerStep.checkpoint_every={at}", "OptimizerStep.keep_states=8"]
    run, cost = train(prompt, changes, RUNS / "unfinished", "tuned", machine.device)
    if arm == PLAIN:
        place.mkdir(parents=True, exist_ok=True)
        shutil.copytree(run, place / "state", ignore=shutil.ignore_patterns("model", "checkpoints"), dirs_exist_ok=True)
    else:
        before = json.loads((place / PLAIN / COST).read_text())  # the common way, and then its own
        cost.forwards += round(START * before["forwards"])
        cost.seconds += START * before["seconds"]
    note = {"steps": steps, "forwards": cost.forwards, "seconds": round(cost.seconds, 2)}
    (run / "model" / COST).write_text(json.dumps(note))
    (run / "model").rename(folder)
    shutil.rmtree(run)
    return folder


def samples(model: Model, kind: str, steps: int, labels: torch.Tensor, guidance: Guidance = UNGUIDED) -> torch.Tensor:
    """Pictures of these classes, always from the same noise."""
    generator, parts = torch.Generator().manual_seed(1), []
    for part in labels.split(AT_ONCE):
        told = {"label": part.to(model.device)}
        options: dict[str, Any] = {"count": len(part), "steps": steps, "generator": generator, "guidance": guidance}
        parts.append(sample(model, FlowMatching(), solver(kind), conditioning=told, **options).cpu())
    return torch.cat(parts)


def columns_of(options: argparse.Namespace) -> list[str]:
    """Where samples are judged: Euler everywhere, which is where arms differ most, and all solvers at 8 evaluations."""
    kinds = SOLVERS if options.all_columns else SOLVERS[:1]
    return [*(f"{kind}_{n}" for kind in kinds for n in EVALUATIONS), *(f"{kind}_8" for kind in SOLVERS[len(kinds) :])]


def labels_of(name: str) -> torch.Tensor:
    """The classes that are asked for: as many of each as there are in the data, spread evenly."""
    return spread(real(name).labels, DATA[name].samples)


def spread(labels: torch.Tensor, count: int) -> torch.Tensor:
    """So many labels (count,), as many of each class as there are among these, in their order."""
    return labels.sort().values[torch.linspace(0, len(labels) - 1, count).round().long()]


def verdict(model: Model, name: str, column: str) -> dict[str, float]:
    _, judge = judged(name, str(model.device))
    kind, _, evaluations = column.partition("_")
    labels = labels_of(name)
    made = samples(model, kind, int(evaluations), labels)
    return {what: round(value, 5) for what, value in judge.verdict(made, labels).items()}


def probed(model: Model, name: str) -> dict[str, float]:
    """The Exposure Bias Probe along 8 Euler steps: mean absolute log ratios of sampled over teacher-forced latents."""
    data = real(name)
    chosen = torch.linspace(0, len(data.labels) - 1, 256).round().long()
    with model.evaluating():
        path = measure(
            model,
            FlowMatching(),
            data.latents[chosen].to(model.device),
            {"label": data.labels[chosen].to(model.device)},
            solver("euler"),
            steps=8,
            generator=torch.Generator().manual_seed(2),
        )
    return {what: round(value, 4) for what, value in summary(path).items()}


def kept(path: Path = RESULTS) -> dict[tuple[str, str, int, str], dict[str, Any]]:
    """All results by data set, budget, seed and arm; several lines of one of them are put together.

    Later lines bring columns, or correct them. Their processor time is that of another hour: the first stands.
    """
    found: dict[tuple[str, str, int, str], dict[str, Any]] = {}
    for line in path.read_text().splitlines() if path.is_file() else ():
        row = json.loads(line)
        before = found.setdefault((row["data"], row["budget"], row["seed"], row["arm"]), {})
        before.update(row | {what: before[what] for what in ("seconds",) if what in before})
    return found


def missing(options: argparse.Namespace) -> Iterator[tuple[str, str, int, str, list[str]]]:
    """Seed by seed, so that what is there can be compared at any time; with the columns that are not there yet."""
    there, machine = kept(), Machine(options.device, options.precision)
    for seed, name, budget, arm in product(options.seeds, options.data, options.budgets, options.arms):
        row = there.get((machine.named(name), budget, seed, arm), {})
        if columns := [column for column in columns_of(options) if column not in row]:
            yield name, budget, seed, arm, columns


def measure_arm(
    name: str, budget: str, seed: int, arm: str, columns: list[str], machine: Machine = CPU
) -> dict[str, Any]:
    folder = trained(arm, name, seed, budget, machine)
    model, cost = load_model(folder).to(machine.device), json.loads((folder / COST).read_text())
    plain = json.loads((trained(PLAIN, name, seed, budget, machine) / COST).read_text())
    row = {"data": machine.named(name), "budget": budget, "seed": seed, "arm": arm, **cost}
    row["times"] = round(cost["seconds"] / plain["seconds"], 4)
    row |= {"accuracy": round(judged(name, str(model.device))[1].accuracy, 4), "probe": probed(model, name)}
    return row | {column: verdict(model, name, column) for column in columns}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--data", nargs="+", choices=DATA, default=["digits", "mnist", "emoji"])
    parser.add_argument("--budgets", nargs="+", choices=("least", "short", "long"), default=["short", "long"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--all-columns", action="store_true", help="judge all solvers at all numbers of evaluations")
    parser.add_argument("--device", choices=("cpu", "cuda", "mps"), default=CPU.device)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default=CPU.precision, help="of training")
    options = parser.parse_args()
    torch.set_num_threads(1)
    until = time.monotonic() + 60 * options.minutes
    for name, budget, seed, arm, columns in list(missing(options)):
        if time.monotonic() > until:
            print("time is up; run again to go on")
            return 1
        row = measure_arm(name, budget, seed, arm, columns, Machine(options.device, options.precision))
        RESULTS.parent.mkdir(exist_ok=True)
        with RESULTS.open("a") as file:
            file.write(json.dumps(row) + "\n")
        shown = {column: round(row[column]["fd"], 3) for column in columns}
        print(name, budget, seed, arm, row["steps"], row["forwards"], row["seconds"], shown, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
