"""Few steps without guidance against many with it: how close does the recipe of few_steps_digits.json come?

The quickstart's U-Net on digits, taught to know no class too. ``plain`` is teacher forcing; ``chains`` are persistent
trajectory chains from half of the training on, whose reference is guided, with the weights of that moment: guidance is
distilled. ``chains_most_late`` is the workflow's setting. All take equal time.

The aim is what ``plain`` makes with guidance in 25 steps, 50 evaluations. How far samples at 4 and 8 evaluations
without guidance are from *these* is the Frechet distance ``to_guided``; ``right`` is the share that a classifier takes
for the class that was asked for, and ``to_data`` the distance to the real digits, which guidance makes larger: it loses
variety.
Made of targets.py; it stops and goes on alike.

    python benchmarks/few_steps.py [--minutes 9] [--seeds 0 1] [--budget 1000] [--only-table]
        [--plot docs/images/few_steps.png]
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from digit_judge import Array, DigitJudge, frechet_distance
from report import table
from targets import HEUN, LABELS, RESULTS, SOAR, Arm, chains, drawn, extra_cost, kept, train

SCALE = 2.0
FEW = [("euler", 4), ("euler", 8), ("unipc", 4), ("unipc", 8)]
MANY = [("euler", 25)]
GUIDED = {"start": 0.5, "reference_guidance": SCALE, "reference_weights": "frozen", "null_class": True}
PLAIN, RECIPE = "plain", "chains_most_late"
ARMS = {
    PLAIN: Arm(null_class=True),
    "chains": chains(0.25, 200.0, **GUIDED),
    "chains_half": chains(0.5, 200.0, **GUIDED),
    "chains_most": chains(0.9, 200.0, **GUIDED),
    "chains_most_late": chains(0.9, 200.0, **{**GUIDED, "start": 0.75}),
    "chains_most_later": chains(0.9, 200.0, **{**GUIDED, "start": 0.85}),
    "chains_most_late_250": chains(0.9, 250.0, **{**GUIDED, "start": 0.75}),
    "chains_most_late_125": chains(0.9, 125.0, **{**GUIDED, "start": 0.75}),
    "chains_all_late": chains(1.0, 200.0, **{**GUIDED, "start": 0.75}),
    "chains_all_late_125": chains(1.0, 125.0, **{**GUIDED, "start": 0.75}),
    "chains_own_sampler": chains(0.25, 200.0, sampler="unipc", order=2, target_sampler="rollout", **GUIDED),
    "fresh": Arm({"max_step_offset": 1, "probability": 0.5, "step_size": 200.0}, "trajectory", **{**HEUN, **GUIDED}),
    # For those who sample with guidance: their samples' distance to the data is what counts.
    "soar_guided_late": Arm({**SOAR, "guidance": SCALE}, "clean", null_class=True),
    # The control: a reference that is itself in training, and guides again what it has learnt to guide.
    "chains_of_ema": chains(0.25, 200.0, **{**GUIDED, "reference_weights": "ema"}),
}

COLUMNS = [f"{name}_{steps}" for name, steps in [*FEW, *MANY]]
Rows = dict[tuple[str, int], dict[str, Any]]


def aim(seed: int, options: argparse.Namespace) -> Path:
    """The file with what teacher forcing makes with guidance, on which all arms of a seed are measured."""
    return options.results.parent / "unfinished" / f"guided_{seed}_{options.budget}.npy"


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
    if name == PLAIN:
        aim(seed, options).parent.mkdir(parents=True, exist_ok=True)
        np.save(aim(seed, options), dict(drawn(*trained, MANY, SCALE))["euler_25"])
    row = {"arm": name, "seed": seed, "budget": options.budget, "steps": steps, "extra_cost": cost}
    guided = np.load(aim(seed, options))
    row |= {column: verdict(made, guided, judge) for column, made in drawn(*trained, [*FEW, *MANY])}
    return row | {f"guided_{column}": verdict(made, guided, judge) for column, made in drawn(*trained, FEW, SCALE)}


def verdict(made: Array, guided: Array, judge: DigitJudge) -> dict[str, float]:
    right = judge.probabilities(made).argmax(1) == LABELS.numpy()
    to_guided = frechet_distance(judge.features(made), judge.features(guided))
    return {"to_guided": to_guided, "to_data": judge.frechet_distance(made), "right": float(right.mean())}


def missing(options: argparse.Namespace) -> Iterator[tuple[str, int]]:
    """Teacher forcing first, and again where its guided samples, which others need, are gone."""
    there = {(row["arm"], row["seed"]) for row in kept(options.results) if row["budget"] == options.budget}
    for seed in options.seeds:
        wanted = [name for name in options.arms if (name, seed) not in there]
        if wanted and not aim(seed, options).is_file():
            wanted = [PLAIN, *(name for name in wanted if name != PLAIN)]
        yield from ((name, seed) for name in wanted)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--budget", type=int, default=1000)
    parser.add_argument("--results", type=Path, default=RESULTS.with_name("few_steps.jsonl"))
    parser.add_argument("--only-table", action="store_true")
    parser.add_argument("--plot", type=Path, help="where the picture of documentation goes")
    options = parser.parse_args()
    judge, until = DigitJudge(), time.monotonic() + 60 * options.minutes
    for name, seed in [] if options.only_table else missing(options):
        row = measured(name, seed, options, judge, until)
        if row is None:
            print("time is up; run again to go on")
            return 1
        options.results.parent.mkdir(exist_ok=True)
        with options.results.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(name, seed, "done", flush=True)
    rows = {(row["arm"], row["seed"]): row for row in kept(options.results) if row["budget"] == options.budget}
    for measure in ("to_guided", "right", "to_data"):
        print(f"\n{measure}, without guidance; plain with guidance too")
        lines = [
            line(rows, name, prefix, measure) for name, prefix in [(PLAIN, "guided_"), *((arm, "") for arm in ARMS)]
        ]
        table(["arm", "seeds", *COLUMNS], [each for each in lines if each])
    if options.plot:
        plot(rows, options.plot)
    return 0


def line(rows: Rows, name: str, prefix: str, measure: str) -> list[object]:
    """An arm's means over its seeds; nothing where it was not measured."""
    mine = [row for (arm, _), row in rows.items() if arm == name]
    if not mine:
        return []
    there = [f"{prefix}{column}" in mine[0] for column in COLUMNS]
    means = [
        mean(mine, prefix + column, measure) if known else "" for column, known in zip(COLUMNS, there, strict=True)
    ]
    return [f"{prefix.replace('_', ' ')}{name}", len(mine), *means]


def mean(rows: list[dict[str, Any]], column: str, measure: str) -> float:
    return statistics.mean(row[column][measure] for row in rows)


def plot(rows: Rows, path: Path) -> None:
    """How near samples are to those of 50 guided evaluations, over the evaluations that they take (Euler)."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(8, 4.8))
    shown = [
        (PLAIN, "", 1, "teacher forcing, unguided"),
        ("chains", "", 1, "guided chains on a quarter, from half on"),
        (RECIPE, "", 1, "the recipe: nine tenths, from 75% on"),
        (PLAIN, "guided_", 2, "teacher forcing, guided"),
    ]
    for name, prefix, calls, words in shown:
        mine = [row for (arm, _), row in rows.items() if arm == name]
        steps = (4, 8) if prefix else (4, 8, 25)
        values = [mean(mine, f"{prefix}euler_{n}", "to_guided") for n in steps]
        axis.plot([calls * n for n in steps], values, marker="o", linestyle="--" if prefix else "-", label=words)
    ticks = (4, 8, 16, 25)
    axis.set(
        xscale="log",
        yscale="log",
        xlabel="evaluations of the network (Euler)",
        ylabel="distance to 50 guided evaluations",
    )
    axis.set_xticks(ticks, [str(tick) for tick in ticks])
    axis.set_xticks([], minor=True)
    axis.set_yticks((0.1, 0.3, 1, 3), ["0.1", "0.3", "1", "3"])
    axis.grid(color="0.9")
    figure.legend(loc="lower center", ncols=2, frameon=False)
    figure.tight_layout(rect=(0, 0.12, 1, 1))
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    sys.exit(main())
