"""A LoRA on few pictures: does it pay there to train on one's own outputs?

A network is trained on all classes but one, with label dropout. Then a LoRA learns the one that was left out from 20 or
100 of its pictures, by soar_lora.json with another beginning and what `--set` would change. The label of that class is
a word that the network has never seen. All arms get the forwards of the network that teacher forcing has: what costs
more trains fewer steps. Judged are

- fidelity: distances of samples to the pictures of that class that were *not* trained;
- overfitting: how far samples are from the trained pictures, over how far the others of the class are (1 is right, 0 is
  learnt by heart), and which share of the samples is nearer to one than 1 in 20 of the others;
- keeping: the distance of samples of the other classes to their pictures, over that of the network without the LoRA.

It stops and goes on as run.py does.

    python benchmarks/evidence/few.py [--minutes 9] [--data mnist digits] [--seeds 0 1] [--counts 20 100]
        [--budgets short long longest] [--arms teacher_forcing ...]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from comfyui_rollout.models.model import Model
from comfyui_rollout.models.saving import load_model
from few_arms import ARMS, LOSS, REFLEX_LOSS, REFLEXFLOW
from few_nodes import SmallLora, SomePictures, items_of, with_lora
from graphs import bypassed, prompt_of, replaced, train
from judge import Array, Judge, covered, distances, frechet_distance, kernel_distance, radii
from pictures import Pictures
from run import DATA, PLAIN, RESULTS, RUNS, judged, samples, spread
from torch import Tensor

FILE = RESULTS.with_name("evidence_few.jsonl")
PRETRAINING = {"mnist": 1500, "emoji": 1500, "digits": 1000}
STEPS = {"least": 60, "short": 150, "long": 500, "longest": 1500}
"""Of teacher forcing. The first is for it alone, to compare arms with that have fewer steps for their forwards."""
LEAST = "least"
TRIED = 24
"""Steps by which an arm's cost is measured."""
LORA_SETTINGS = (
    "Optimizer.learning_rate=0.001",
    "Optimizer.warmup_steps=20",
    "OptimizerStep.accumulation=1",
    "OptimizerStep.precision=fp32",
    "OptimizerStep.checkpoint_every=0",
    "NoisyBatch.label_dropout=0.1",
)
COLUMNS = (("euler", 8), ("euler", 32), ("unipc", 8))
NEW, OTHERS = 300, 270
"""Samples of the class that was left out, and of the others together."""
WORKFLOW = "soar_lora.json"


@dataclass(frozen=True)
class Task:
    """One pretrained network, and the class and the pictures that a LoRA is to learn."""

    data: str
    seed: int
    count: int = 0

    @property
    def left_out(self) -> int:
        """Another class for each seed, the last one first."""
        classes = len(judged(self.data)[0].names)
        return classes - 1 - self.seed % classes

    @property
    def about(self) -> dict[str, Any]:
        """Inputs of the data set's node."""
        size = DATA[self.data].size
        return {"data": self.data, "size": size, "left_out": self.left_out, "count": self.count, "seed": self.seed}


def pretrained(task: Task) -> Path:
    """The folder of the network that knows all classes but one."""
    folder = RUNS / f"few_{task.data}_{task.seed}"
    if not folder.is_dir():
        prompt = bypassed(prompt_of("quickstart_digits.json"), "Rollout", "batch")
        about = {**Task(task.data, task.seed).about, "batch_size": DATA[task.data].batch}
        prompt = replaced(prompt, "RolloutDigitsDataset", SomePictures.NODE_ID, **about)
        changes = [*DATA[task.data].changes, "NewModel.null_class=true", "NoisyBatch.label_dropout=0.1"]
        changes += [f"OptimizerStep.steps={PRETRAINING[task.data]}", f"OptimizerStep.seed={task.seed}"]
        keep_model(prompt, [*changes, "OptimizerStep.ema_decay=0.995"], folder)
    return folder


def keep_model(prompt: dict[str, Any], changes: list[str], folder: Path) -> int:
    """Train, and keep the model alone in that folder; the forwards that it has cost."""
    unfinished = RUNS / f"unfinished_few_{os.getpid()}"  # two of them may run side by side
    run, cost = train(prompt, changes, unfinished, "tuned")
    (run / "model").rename(folder)
    shutil.rmtree(unfinished)
    return cost.forwards


def mixed(prompt: dict[str, Any]) -> dict[str, Any]:
    """With the pictures of the other classes beside the LoRA's own, as dreambooth_rollout.json has them."""
    number, own = next((number, node) for number, node in prompt.items() if node["class_type"] == SomePictures.NODE_ID)
    others = {"class_type": SomePictures.NODE_ID, "inputs": {**own["inputs"], "count": 0}}
    wires = {"dataset_1": ["own", 0], "weight_1": 1.0, "dataset_2": ["others", 0], "weight_2": 1.0}
    both = {"class_type": "RolloutCombineDatasets", "inputs": wires}
    return {**prompt, "own": own, "others": others, number: both}


def made_small(prompt: dict[str, Any], task: Task, batch_size: int = 10, folder: str = "") -> dict[str, Any]:
    """A workflow for a LoRA, with the network of this bench and the task's pictures in place of a pipeline's.

    It goes on with the LoRA in ``folder``, if that is given.
    """
    prompt = bypassed(prompt, "RolloutEncodeDataset", "dataset")
    prompt = replaced(prompt, "RolloutLoadPretrained", "RolloutLoadModel", folder=str(pretrained(task)))
    (lora,) = (node["inputs"]["model"] for node in prompt.values() if node["class_type"] == "RolloutAddLora")
    prompt = replaced(prompt, "RolloutAddLora", SmallLora.NODE_ID, model=lora, folder=folder)
    return replaced(prompt, "RolloutImageFolderDataset", SomePictures.NODE_ID, **task.about, batch_size=batch_size)


def tuned(task: Task, name: str, steps: int) -> tuple[Path, int]:
    """The folder of a LoRA that was trained so many steps, and its cost in forwards of the network."""
    chosen, prompt = ARMS[name], made_small(prompt_of(WORKFLOW), task)
    prompt = mixed(prompt) if chosen.mixed else prompt
    if chosen.reflexflow:
        (links,) = (node["inputs"] for node in prompt.values() if node["class_type"] == LOSS)
        wires = {what: value for what, value in links.items() if isinstance(value, list)}
        prompt = replaced(prompt, LOSS, REFLEX_LOSS, **wires, **REFLEXFLOW)
    prompt = prompt if chosen.rolls else bypassed(prompt, "Rollout", "batch")
    changes = [*LORA_SETTINGS, "OptimizerStep.ema_decay=0", *chosen.changes]
    changes += [f"OptimizerStep.steps={steps}", f"OptimizerStep.seed={task.seed}"]
    folder = RUNS / f"few_{task.data}_{task.seed}_{task.count}_{name}_{steps}"
    shutil.rmtree(folder, ignore_errors=True)
    return folder, keep_model(prompt, changes, folder)


def steps_of(task: Task, name: str, steps: int) -> int:
    """How many steps the arm has for the forwards of so many of teacher forcing."""
    if name == PLAIN:
        return steps
    return round(steps * cost_of(task.data, PLAIN) / cost_of(task.data, name))


@cache
def cost_of(data: str, name: str) -> int:
    """Forwards of the network in a few steps."""
    folder, forwards = tuned(Task(data, 0, 20), name, TRIED)
    shutil.rmtree(folder)
    return forwards


@dataclass(frozen=True)
class Measured:
    """Pictures (n, d) as features, their classes (n,), and what they cover."""

    features: Array
    labels: Tensor

    @classmethod
    def of(cls, judge: Judge, latents: Tensor, labels: Tensor) -> Measured:
        return cls(judge.features(latents), labels)

    def against(self, real: Measured) -> dict[str, float]:
        made = self.features
        return {
            "fd": frechet_distance(made, real.features),
            "kid": kernel_distance(made, self.labels.numpy(), real.features, real.labels.numpy()),
            "precision": covered(made, real.features, radii(real.features)),
            "recall": covered(real.features, made, radii(made)),
        }


def nearest(pictures: Tensor, trained: Tensor) -> Array:
    """How far each picture (n, C, H, W) is from the next one that was trained (n,), as a distance of pixels."""
    flat = [each.clamp(-1, 1).flatten(1).double().numpy() for each in (pictures, trained)]
    return np.sqrt(distances(*flat).min(1))


def verdict(model: Model, task: Task) -> dict[str, Any]:
    """All measures of one network, with or without a LoRA."""
    data, judge = judged(task.data)
    trained = items_of(task.data, DATA[task.data].size, task.left_out, task.count, task.seed)
    is_new = data.labels == task.left_out
    unseen = is_new.clone()
    unseen[trained] = False
    asked, row = torch.full((NEW,), task.left_out), {}
    for kind, steps in COLUMNS:
        made = samples(model, kind, steps, asked)
        found = Measured.of(judge, made, asked).against(real_of(data, judge, unseen))
        found["right"] = judge.right(made, asked)
        if task.count:
            own = nearest(made, data.latents[trained])
            usual = nearest(data.latents[unseen], data.latents[trained])
            found |= {"nearest": np.median(own) / np.median(usual), "copied": (own < np.quantile(usual, 0.05)).mean()}
        row[f"{kind}_{steps}"] = {what: round(float(value), 5) for what, value in found.items()}
    labels = spread(data.labels[~is_new], OTHERS)
    made = samples(model, "unipc", 8, labels)
    kept = Measured.of(judge, made, labels).against(real_of(data, judge, ~is_new))
    kept["right"] = judge.right(made, labels)
    return row | {"others": {what: round(value, 5) for what, value in kept.items()}}


def real_of(data: Pictures, judge: Judge, chosen: Tensor) -> Measured:
    return Measured(judge.real[chosen.numpy()], data.labels[chosen])


def kept(path: Path = FILE) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


BASE = "without"
"""The network without a LoRA."""


def missing(options: argparse.Namespace) -> Iterator[tuple[Task, str, str]]:
    there = {(row["data"], row["seed"], row["count"], row["budget"], row["arm"]) for row in kept()}
    for seed, data in product(options.seeds, options.data):
        if (data, seed, 0, BASE, BASE) not in there:
            yield Task(data, seed), BASE, BASE
        for budget, count, name in product(STEPS, options.counts, options.arms):
            wanted = name == PLAIN if budget == LEAST else budget in options.budgets
            if wanted and (data, seed, count, budget, name) not in there:
                yield Task(data, seed, count), budget, name


def measure(task: Task, budget: str, name: str) -> dict[str, Any]:
    row = {"data": task.data, "seed": task.seed, "count": task.count, "budget": budget, "arm": name}
    if name == BASE:
        return row | verdict(load_model(pretrained(task)), task)
    steps = steps_of(task, name, STEPS[budget])
    folder, forwards = tuned(task, name, steps)
    return row | {"steps": steps, "forwards": forwards} | verdict(with_lora(pretrained(task), folder), task)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--data", nargs="+", choices=PRETRAINING, default=["digits"])
    parser.add_argument("--budgets", nargs="+", choices=("short", "long", "longest"), default=["short", "long"])
    parser.add_argument("--counts", nargs="+", type=int, default=[20, 100])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    RUNS.mkdir(exist_ok=True)
    until = time.monotonic() + 60 * options.minutes
    for task, budget, name in list(missing(options)):
        if time.monotonic() > until:
            print("time is up; run again to go on")
            return 1
        row = measure(task, budget, name)
        FILE.parent.mkdir(exist_ok=True)
        with FILE.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(row, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
