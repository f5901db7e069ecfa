"""A LoRA that makes a finished network fast: fast_lora.json on the networks of few.py, and on LoRAs of theirs.

Its chains go from pure noise down eight levels and learn to land where what it begins with would be, with guidance
(``guided``) or without (``unguided``), and with finer steps. That is the network alone, which stays as it is and
samples as before without the LoRA; or, with ``--counts 100``, a LoRA of 500 steps on so many pictures of the class that
the network does not know, with which it goes on. Two other ways there: the fast LoRA of the network alone is loaded
``beside`` that LoRA, and few_steps_lora.json learns the pictures and to be fast ``at once``, for the forwards of 500
steps.

Judged is how far samples at few evaluations without guidance are

- from what it begins with makes in 25 steps, with guidance (50 evaluations) or without: ``to_guided``,
  ``to_unguided``;
- from the real pictures of the classes that were learnt, for a LoRA those that it was not shown: ``to_data``.

    python benchmarks/evidence/fast.py [--minutes 9] [--data digits mnist emoji] [--seeds 0 1 2] [--counts 0 100]
        [--picture docs/images/fast_lora.png]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from itertools import product
from pathlib import Path
from typing import Any

import torch
from comfyui_rollout.diffusion.rollouts.guidance import UNGUIDED, Guidance
from comfyui_rollout.models.model import NO_CLASS, Model
from few import LORA_SETTINGS, PRETRAINING, Task, keep_model, kept, made_small, pretrained, real_of, tuned
from few import PLAIN as TEACHER_FORCING
from few import STEPS as STEPS_OF
from few_arms import GUIDANCE
from few_nodes import items_of, with_lora
from graphs import prompt_of
from judge import Array, Judge, frechet_distance
from run import DATA, RESULTS, RUNS, judged, samples, spread
from torch import Tensor

FILE = RESULTS.with_name("evidence_fast.jsonl")
STEPS, BATCH_OF_FEW = 200, 32
AT_ONCE = 385
"""Steps of few_steps_lora.json for the forwards of 500 of teacher forcing: its last quarter costs more than twice."""
COUNT = 900
COLUMNS = (("euler", 4), ("euler", 8), ("euler", 25), ("unipc", 4), ("unipc", 8))
AIM = "euler_25"
PLAIN, GUIDED, BESIDE, TOGETHER = "network", "network, guided", "beside", "at once"
ARMS = {"guided": GUIDANCE, "unguided": 1.0}
"""The guidance of the reference."""
GUIDE = Guidance(GUIDANCE, negative={"label": torch.tensor([NO_CLASS])})


def own(task: Task) -> Path:
    """The folder of the LoRA on the task's pictures."""
    folder = RUNS / f"own_{task.data}_{task.seed}_{task.count}"
    if not folder.is_dir():
        tuned(task, TEACHER_FORCING, STEPS_OF["long"])[0].rename(folder)
    return folder


def begun(task: Task) -> tuple[Path, ...]:
    """The LoRA that is to become fast; none where that is the network alone."""
    return (own(task),) if task.count else ()


def trained(task: Task, arm: str, prompt: dict[str, Any], guidance: float, steps: int) -> Path:
    """The folder of the LoRA that the workflow makes."""
    folder = RUNS / f"fast_{task.data}_{task.seed}_{task.count}_{arm}".replace(" ", "_")
    if not folder.is_dir():
        changes = [f"DiffusionLoss.reference_guidance={guidance}", f"OptimizerStep.seed={task.seed}"]
        keep_model(prompt, [*LORA_SETTINGS, *changes, f"OptimizerStep.steps={steps}"], folder)
    return folder


def fast(task: Task, arm: str) -> Path:
    batch_size = BATCH_OF_FEW if task.count else DATA[task.data].batch
    prompt = made_small(prompt_of("fast_lora.json"), task, batch_size, *map(str, begun(task)))
    return trained(task, arm, prompt, ARMS[arm], STEPS)


def at_once(task: Task) -> Path:
    return trained(task, TOGETHER, made_small(prompt_of("few_steps_lora.json"), task), GUIDANCE, AT_ONCE)


def models(task: Task) -> dict[str, tuple[Path, ...]]:
    """The LoRAs that each arm samples with."""
    arms = {PLAIN: begun(task)} | {arm: (fast(task, arm),) for arm in ARMS}
    if task.count:
        arms |= {BESIDE: (own(task), fast(Task(task.data, task.seed), "guided")), TOGETHER: (at_once(task),)}
    return arms


def drawn(model: Model, labels: Tensor, guidance: Guidance = UNGUIDED) -> dict[str, Tensor]:
    """Samples of these classes by each solver in so many steps, always from the same noise."""
    return {f"{kind}_{steps}": samples(model, kind, steps, labels, guidance) for kind, steps in COLUMNS}


def verdict(
    made: dict[str, Tensor], aims: dict[str, Array], labels: Tensor, judge: Judge
) -> dict[str, dict[str, float]]:
    """For each column how far its samples are from each aim, and how many are taken for the class asked for."""
    row = {}
    for column, pictures in made.items():
        features = judge.features(pictures)
        found = {aim: frechet_distance(features, goal) for aim, goal in aims.items()}
        found["right"] = judge.right(pictures, labels)
        row[column] = {what: round(value, 5) for what, value in found.items()}
    return row


def measure(task: Task) -> dict[str, Any]:
    data, judge = judged(task.data)
    real = (data.labels == task.left_out) == bool(task.count)
    if task.count:
        real[items_of(task.data, DATA[task.data].size, task.left_out, task.count, task.seed)] = False
    labels = spread(data.labels[real], COUNT)
    loaded = {arm: with_lora(pretrained(task), *folders) for arm, folders in models(task).items()}
    made = {arm: drawn(model, labels) for arm, model in loaded.items()}
    made[GUIDED] = drawn(loaded[PLAIN], labels, GUIDE)
    aims = {"to_guided": judge.features(made[GUIDED][AIM]), "to_unguided": judge.features(made[PLAIN][AIM])}
    aims["to_data"] = real_of(data, judge, real).features
    about = {"data": task.data, "seed": task.seed, "count": task.count}
    return about | {arm: verdict(pictures, aims, labels, judge) for arm, pictures in made.items()}


def picture(task: Task, path: Path) -> None:
    """The same noise with and without the LoRA, a column for each class that the network knows."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    data, _ = judged(task.data)
    labels = torch.tensor([label for label in range(len(data.names)) if label != task.left_out])
    network, with_it = (with_lora(pretrained(task), *folders) for folders in (begun(task), [fast(task, "guided")]))
    rows = {
        "4 evaluations": drawn(network, labels)["euler_4"],
        "8, with guidance": drawn(network, labels, GUIDE)["euler_4"],
        "4, with the LoRA": drawn(with_it, labels)["euler_4"],
        "50, with guidance": drawn(network, labels, GUIDE)[AIM],
    }
    figure, axes = plt.subplots(len(rows), 1, figsize=(9, 4.4), layout="constrained")
    for axis, (words, made) in zip(axes, rows.items(), strict=True):
        line = torch.cat(list(made.clamp(-1, 1)), dim=2).permute(1, 2, 0) / 2 + 0.5
        axis.imshow(line.squeeze(2) if line.shape[2] == 1 else line, cmap="gray", vmin=0, vmax=1)
        axis.set_ylabel(words, rotation=0, ha="right", va="center", fontsize=11)
        axis.set(xticks=[], yticks=[])
    figure.savefig(path, dpi=100)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--data", nargs="+", choices=PRETRAINING, default=["digits"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--counts", nargs="+", type=int, default=[0, 100])
    parser.add_argument("--picture", type=Path, help="where the picture of the first data set and seed goes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    RUNS.mkdir(exist_ok=True)
    until = time.monotonic() + 60 * options.minutes
    there = {(row["data"], row["seed"], row["count"]) for row in kept(FILE)}
    for about in product(options.data, options.seeds, options.counts):
        if about in there:
            continue
        if time.monotonic() > until:
            print("time is up; run again to go on")
            return 1
        row = measure(Task(*about))
        with FILE.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(row, flush=True)
    if options.picture:
        picture(Task(options.data[0], options.seeds[0]), options.picture)
    return 0


if __name__ == "__main__":
    sys.exit(main())
