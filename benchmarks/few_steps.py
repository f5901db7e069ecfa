"""Few steps without guidance against many with it: how close does the recipe of few_steps_digits.json come?

The quickstart's U-Net on digits, taught to know no class too. ``plain`` is teacher forcing; ``chains`` are persistent
trajectory chains from half of the training on, whose reference is guided, with the weights of that moment: guidance is
distilled. Both take equal time.
Sampled without guidance at 4 and 8 evaluations, and with guidance at 25 steps, 50 evaluations. Frechet distances as in
targets.py, of which this is made; it stops and goes on alike.

    python benchmarks/few_steps.py [--minutes 9] [--seeds 0 1] [--budget 1000] [--only-table]
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from digit_judge import DigitJudge
from report import table
from targets import HEUN, RESULTS, Arm, chains, distances, extra_cost, kept, train

SCALE = 2.0
FEW = [("euler", 4), ("euler", 8), ("unipc", 4), ("unipc", 8)]
GUIDED = {"start": 0.5, "reference_guidance": SCALE, "reference_weights": "frozen", "null_class": True}
ARMS = {
    "plain": Arm(null_class=True),
    "chains": chains(0.25, 200.0, **GUIDED),
    "chains_250": chains(0.25, 250.0, **GUIDED),
    "chains_125": chains(0.25, 125.0, **GUIDED),
    "chains_own_sampler": chains(0.25, 200.0, sampler="unipc", order=2, target_sampler="rollout", **GUIDED),
    "fresh": Arm({"max_step_offset": 1, "probability": 0.5, "step_size": 200.0}, "trajectory", **{**HEUN, **GUIDED}),
    # The control: a reference that is itself in training, and guides again what it has learnt to guide.
    "chains_of_ema": chains(0.25, 200.0, **{**GUIDED, "reference_weights": "ema"}),
}


def measured(
    name: str, seed: int, options: argparse.Namespace, judge: DigitJudge, until: float
) -> dict[str, Any] | None:
    """One line of results, or None if the time is up; then it goes on there."""
    arm, folder = ARMS[name], options.results.parent / "unfinished" / f"few_{name}_{seed}_{options.budget}"
    note = folder / "cost.json"
    cost = json.loads(note.read_text()) if note.is_file() else extra_cost(arm)
    steps = round(options.budget / (1 + cost * (1 - arm.start)))
    trained = train(arm, steps, seed, until, folder)
    if trained is None:
        note.write_text(json.dumps(cost))
        return None
    shutil.rmtree(folder, ignore_errors=True)
    many = distances(*trained, judge, [("euler", 25)], SCALE)
    row = {"arm": name, "seed": seed, "budget": options.budget, "steps": steps, "extra_cost": cost}
    return row | distances(*trained, judge, FEW) | {f"guided_{key}": value for key, value in many.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--budget", type=int, default=1000)
    parser.add_argument("--results", type=Path, default=RESULTS.with_name("few_steps.jsonl"))
    parser.add_argument("--only-table", action="store_true")
    options = parser.parse_args()
    judge, until = DigitJudge(), time.monotonic() + 60 * options.minutes
    for seed in [] if options.only_table else options.seeds:
        for name in options.arms:
            if any(
                (row["arm"], row["seed"], row["budget"]) == (name, seed, options.budget)
                for row in kept(options.results)
            ):
                continue
            row = measured(name, seed, options, judge, until)
            if row is None:
                print("time is up; run again to go on")
                return 1
            options.results.parent.mkdir(exist_ok=True)
            with options.results.open("a") as file:
                file.write(json.dumps(row) + "\n")
    columns = [*(f"{name}_{steps}" for name, steps in FEW), "guided_euler_25"]
    done = [row for row in kept(options.results) if row["budget"] == options.budget]
    rows = []
    for name in ARMS:
        mine = [row for row in done if row["arm"] == name]
        if mine:
            rows.append([name, len(mine), *(statistics.mean(row[column] for row in mine) for column in columns)])
    table(["arm", "seeds", *columns], rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
