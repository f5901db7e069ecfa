"""Class-conditional guidance at few steps: on the networks of few.py before any LoRA, which know no class too.

python benchmarks/evidence/guidance.py [--data digits] [--seeds 0 1]
"""

from __future__ import annotations

import argparse
import json
from itertools import product
from typing import Any

import torch
from comfyui_rollout.diffusion.rollouts.guidance import Guidance
from comfyui_rollout.models.model import NO_CLASS
from comfyui_rollout.models.saving import load_model
from few import PRETRAINING, Measured, Task, kept, pretrained, real_of
from run import RESULTS, judged, samples, spread

FILE = RESULTS.with_name("evidence_guidance.jsonl")
SCALES = (1.0, 1.5, 2.0, 3.0)
COLUMNS = (("euler", 8), ("euler", 16), ("dpm", 8), ("unipc", 8))
COUNT = 450


def measure(task: Task) -> dict[str, Any]:
    data, judge = judged(task.data)
    known = data.labels != task.left_out
    labels = spread(data.labels[known], COUNT)
    model, real, row = load_model(pretrained(task)), real_of(data, judge, known), {}
    for (kind, steps), scale in product(COLUMNS, SCALES):
        guidance = Guidance(scale, negative={"label": torch.tensor([NO_CLASS])})
        made = samples(model, kind, steps, labels, guidance)
        found = Measured.of(judge, made, labels).against(real) | {"right": judge.right(made, labels)}
        row[f"{kind}_{steps}: {scale:g}"] = {what: round(value, 5) for what, value in found.items()}
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=PRETRAINING, default=["digits"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    options = parser.parse_args()
    torch.set_num_threads(1)
    there = {(row["data"], row["seed"]) for row in kept(FILE)}
    for seed, data in product(options.seeds, options.data):
        if (data, seed) not in there:
            row = {"data": data, "seed": seed, **measure(Task(data, seed))}
            with FILE.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(row, flush=True)


if __name__ == "__main__":
    main()
