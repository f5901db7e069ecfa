"""The tables and plots of docs/evidence.md from the lines of results: means over seeds, paired with teacher forcing.

An arm is compared with teacher forcing *of the same seed and the same cost*. How much a longer teacher forcing gains is
measured between the two budgets, and taken to go straight on logarithmic scales from there: once over forwards of the
network and once over processor time, in which an arm that ran on another machine has no ``seconds``. Intervals are 95%
of the bootstrap over seeds, of the mean of the logarithms.

    python benchmarks/evidence/report.py [--page docs/evidence.md] [--images docs/images] [--plotted fresh_300 ...]

A table stands in the page between ``<!-- table: digits short seconds -->`` (or ``forwards``, ``measures``,
``solvers``, ``guidance``, ``fast`` or ``corrections``, which has all data; ``digits short_20 few`` is of LoRAs on 20
pictures, ``digits 100 fast`` of fast LoRAs of LoRAs on 100) and ``<!-- end -->``; it is written anew.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import fast
import few
import few_arms
import guidance
import numpy as np
from arms import ARMS
from corrections import FILE, VARIANTS
from run import DATA, EVALUATIONS, PLAIN, SOLVERS, kept

Row = dict[str, Any]
DRAWS = 10_000
FEWEST = 3
"""Fewer seeds never make a ratio bold: their interval is their range."""
TICKS = (0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.2, 1.5)
FEW_STEPS = (4, 8)
LIMITS = (0.5, 1.6)
"""Of the plot, in times teacher forcing."""


def slope(rows: dict[Any, Row], data: str, column: str, measure: str) -> float:
    """Of the logarithm of teacher forcing's distance over that of its cost, from the short to the long budget.

    Where there is no long one from the least to the short, which says too much: training gains less and less. The mean
    over all seeds that have both; never above 0.
    """
    for less, more in (("short", "long"), ("least", "short")):
        slopes = []
        for (name, budget, seed, arm), short in rows.items():
            long = rows.get((data, more, seed, PLAIN))
            if (name, budget, arm) == (data, less, PLAIN) and long and column in long and column in short:
                gain = math.log(long[column]["fd"] / short[column]["fd"])
                slopes.append(gain / math.log(long[measure] / short[measure]))
        if slopes:
            return min(0.0, float(np.mean(slopes)))
    return 0.0


def cost(row: Row, plain: Row, measure: str) -> float:
    """In times teacher forcing's; processor time over that of the same machine in the same hour, where it was noted."""
    if measure == "seconds" and "times" in row:
        return float(row["times"])
    return float(row[measure] / plain[measure])


def ratios(rows: dict[Any, Row], data: str, budget: str, arm: str, column: str, measure: str) -> list[float]:
    """Over teacher forcing of equal cost, one for each seed that has both."""
    found, gain = [], slope(rows, data, column, measure)
    for (name, length, seed, which), row in sorted(rows.items()):
        plain = rows.get((data, budget, seed, PLAIN))
        if (
            (name, length, which) == (data, budget, arm)
            and plain
            and measure in row
            and column in row
            and column in plain
        ):
            equal = plain[column]["fd"] * cost(row, plain, measure) ** gain
            found.append(row[column]["fd"] / equal)
    return found


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The geometric mean, and the ends of its bootstrap interval."""
    logs = np.log(values)
    drawn = np.random.default_rng(0).choice(logs, (DRAWS, len(logs))).mean(1)
    low, high = np.exp(np.quantile(drawn, (0.025, 0.975)))
    return float(np.exp(logs.mean())), float(low), float(high)


def cell(values: Sequence[float]) -> str:
    if not values:
        return ""
    mean, low, high = interval(values)
    if len(values) == 1:
        return f"{mean:.2f}"
    shown = f"**{mean:.2f}**" if high < 1 and len(values) >= FEWEST else f"{mean:.2f}"
    return f"{shown} ({low:.2f} to {high:.2f})"


SHOWN = [*(f"euler_{n}" for n in EVALUATIONS), *(f"{kind}_8" for kind in SOLVERS[1:])]


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def ratio_table(rows: dict[Any, Row], data: str, budget: str, measure: str, shown: Sequence[str] = SHOWN) -> str:
    """One line an arm; the first has teacher forcing's distances themselves."""
    plain = {
        seed: row for (name, length, seed, arm), row in rows.items() if (name, length, arm) == (data, budget, PLAIN)
    }
    first = ["teacher forcing: the distance", str(len(plain)), ""]
    first += [f"{np.mean([row[column]['fd'] for row in plain.values() if column in row]):.3f}" for column in shown]
    half_more = [f"{1.5 ** slope(rows, data, column, measure):.2f}" for column in shown]
    lines = [first, ["teacher forcing, half as long again (estimated)", "", "1.50", *half_more]]
    for arm, about in ARMS.items():
        mine = {
            seed: row
            for (name, length, seed, which), row in rows.items()
            if (name, length, which) == (data, budget, arm) and measure in row and seed in plain
        }
        if arm == PLAIN or not mine:
            continue
        costs = [cost(row, plain[seed], measure) for seed, row in mine.items()]
        cells = [cell(ratios(rows, data, budget, arm, column, measure)) for column in shown]
        lines.append([about.words, str(len(mine)), f"{np.mean(costs):.2f}", *cells])
    head = ["arm", "seeds", "cost", *(column.replace("_", " ") for column in shown)]
    return markdown(head, lines)


def other_table(rows: dict[Any, Row], data: str, budget: str, column: str) -> str:
    """Beside the Frechet distance: KID, precision, recall, and the Exposure Bias Probe."""
    lines = []
    for arm, about in ARMS.items():
        mine = [row for (name, length, _, which), row in rows.items() if (name, length, which) == (data, budget, arm)]
        if mine and all(column in row for row in mine):
            means = [
                np.mean([row[column][what] for row in mine]) for what in ("fd", "kid", "precision", "recall", "right")
            ]
            probe = [
                np.mean([row["probe"][what] for row in mine]) for what in ("variance", "output", "band_1", "band_4")
            ]
            lines.append([about.words, *(f"{mean:.3f}" for mean in means), *(f"{mean:.1%}" for mean in probe)])
    head = ["arm", "FD", "KID", "precision", "recall", "right class", "variance", "output", "lowest", "highest band"]
    return markdown(head, lines)


def solvers_table(rows: dict[Any, Row], data: str, budget: str) -> str:
    """Teacher forcing by solver and evaluations: means over the seeds whose every column was judged."""
    plain = [row for (name, length, _, arm), row in rows.items() if (name, length, arm) == (data, budget, PLAIN)]
    whole = [row for row in plain if all(f"{kind}_{n}" in row for kind, n in product(SOLVERS, EVALUATIONS))]
    lines = [
        [kind, str(len(whole)), *(f"{np.mean([row[f'{kind}_{n}']['fd'] for row in whole]):.2f}" for n in EVALUATIONS)]
        for kind in SOLVERS
    ]
    return markdown(["solver", "seeds", *(str(n) for n in EVALUATIONS)], lines)


def corrections_table(budget: str) -> str:
    """Corrections at sampling time over plain sampling of the same model: geometric means over seeds."""
    lines = [json.loads(line) for line in FILE.read_text().splitlines()] if FILE.is_file() else []
    lines = [line for line in lines if (line["budget"], line["arm"]) == (budget, PLAIN)]
    judged = [(name, mine) for name in DATA if (mine := [line for line in lines if line["data"] == name])]
    columns = [(kind, mine) for _, mine in judged for kind in ("euler", "unipc")]
    head = [f"{name} ({len(mine)}), {kind} 8" for name, mine in judged for kind in ("euler", "unipc")]

    def ratio(kind: str, mine: Sequence[Row], variant: str) -> str:
        logs = [math.log(line[f"{kind}: {variant}"] / line[f"{kind}: none"]) for line in mine]
        return f"{math.exp(float(np.mean(logs))):.2f}"

    variants = [variant for variant in VARIANTS if variant != "none"]
    made = ([variant, *(ratio(kind, mine, variant) for kind, mine in columns)] for variant in variants)
    return markdown(["correction", *head], made)


def few_table(data: str, budget: str, count: int) -> str:
    """LoRAs on so many pictures; all arms have had equal forwards, so that they are compared as they are."""
    rows = [row for row in few.kept() if row["data"] == data]
    base = {row["seed"]: row["others"]["fd"] for row in rows if row["arm"] == few.BASE}
    rows = [row for row in rows if (row["budget"], row["count"]) == (budget, count)]
    plain = {row["seed"]: row for row in rows if row["arm"] == PLAIN}
    lines = []
    for arm, about in few_arms.ARMS.items():
        mine = [row for row in rows if row["arm"] == arm and row["seed"] in plain]
        if not mine:
            continue
        cells = []
        for column in (f"{kind}_{steps}" for kind, steps in few.COLUMNS):
            found = [row[column]["fd"] / (1 if arm == PLAIN else plain[row["seed"]][column]["fd"]) for row in mine]
            cells.append(f"{np.mean(found):.1f}" if arm == PLAIN else cell(found))
        cells += [f"{np.mean([row['unipc_8'][what] for row in mine]):.2f}" for what in ("recall", "right")]
        cells += [f"{np.mean([row['unipc_8'][what] for row in mine]):.2f}" for what in ("nearest", "copied")]
        cells.append(f"{np.mean([row['others']['fd'] / base[row['seed']] for row in mine]):.2f}")
        words = "teacher forcing: the distance" if arm == PLAIN else about.words
        lines.append([words, str(len(mine)), f"{np.mean([row['steps'] for row in mine]):.0f}", *cells])
    head = ["arm", "seeds", "steps", *(f"{kind} {steps}" for kind, steps in few.COLUMNS)]
    return markdown([*head, "recall", "right class", "nearest", "copied", "others"], lines)


def guidance_table(data: str) -> str:
    """The network of few.py before any LoRA, with guidance: means over seeds."""
    rows = [row for row in few.kept(guidance.FILE) if row["data"] == data]

    def mean(column: str, scale: float, what: str) -> float:
        return float(np.mean([row[f"{column}: {scale:g}"][what] for row in rows]))

    columns = [f"{kind}_{steps}" for kind, steps in guidance.COLUMNS]
    lines = []
    for scale in guidance.SCALES:
        rest = [f"{mean('unipc_8', scale, what):.2f}" for what in ("precision", "recall", "right")]
        lines.append([f"{scale:g}", *(f"{mean(column, scale, 'fd'):.2f}" for column in columns), *rest])
    head = ["guidance", *(column.replace("_", " ") for column in columns)]
    return markdown([*head, "precision", "recall", "right class"], lines)


FAST = {
    "to_guided": {
        fast.PLAIN: ("without it", 1),
        fast.GUIDED: ("without it, guided", 2),
        "guided": ("**fast LoRA**", 1),
        fast.BESIDE: ("fast LoRA of the network alone, loaded beside", 1),
        fast.TOGETHER: ("pictures and speed at once", 1),
    },
    "to_data": {fast.PLAIN: ("without it", 1), "unguided": ("**fast LoRA**, reference without guidance", 1)},
}
"""The lines of its table: what is aimed at, and of each arm its words and how often a step asks the network."""


def mean_and_range(values: Sequence[float]) -> str:
    return f"{np.mean(values):.2f}" + (f" ({min(values):.2f} to {max(values):.2f})" if len(values) > 1 else "")


def fast_table(data: str, count: int) -> str:
    """The LoRAs of fast.py: distances to what each aims at, means over seeds, behind them their range."""
    rows = [row for row in few.kept(fast.FILE) if (row["data"], row["count"]) == (data, count)]
    columns = [f"{kind}_{steps}" for kind, steps in fast.COLUMNS if steps in FEW_STEPS]
    lines = []
    for aim, arms in FAST.items():
        for arm, (words, calls) in arms.items():
            if any(arm in row for row in rows):
                values = [[row[arm][column][aim] for row in rows] for column in columns]
                cells = [mean_and_range(each) for each in values]
                evaluations = " or ".join(str(calls * steps) for steps in FEW_STEPS)
                lines.append([aim.replace("_", " "), words, evaluations, *cells])
    return markdown(["distance", "", "evaluations", *(column.replace("_", " ") for column in columns)], lines)


def plot(rows: dict[Any, Row], arms: Sequence[str], path: Path) -> None:
    """Ratios over evaluations, a panel for each data set and budget, with their intervals."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    names = [name for name in DATA if {"short", "long"} <= {key[1] for key in rows if key[0] == name}]
    figure, axes = plt.subplots(2, len(names), figsize=(11, 7), sharex=True, sharey=True, squeeze=False)
    for axis, (budget, data) in zip(axes.flat, product(("short", "long"), names), strict=True):
        for arm in arms:
            found = [(n, ratios(rows, data, budget, arm, f"euler_{n}", "seconds")) for n in EVALUATIONS]
            points = [(n, *interval(values)) for n, values in found if values]
            if points:
                at, mean, low, high = map(np.array, zip(*points, strict=True))
                line = axis.plot(at, mean, marker="o", label=ARMS[arm].words)[0]
                axis.fill_between(at, low, high, color=line.get_color(), alpha=0.15)
        axis.axhline(1, color="grey", linewidth=1)
        axis.set(xscale="log", yscale="log", ylim=LIMITS, title=f"{data}, {budget} budget")
        axis.grid(color="0.9")
        axis.set_xticks(EVALUATIONS, [str(n) for n in EVALUATIONS])
        axis.set_xticks([], minor=True)
        axis.set_yticks(TICKS, [str(tick) for tick in TICKS])
        axis.set_yticks([], minor=True)
    figure.supylabel("Fréchet distance over teacher forcing of equal time", fontsize=12)
    figure.supxlabel("evaluations of the network (Euler)", fontsize=12, y=0.12)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, [label.replace("`", "") for label in labels], loc="lower center", frameon=False, fontsize=11)
    figure.tight_layout(rect=(0, 0.13, 1, 1))
    figure.savefig(path, dpi=100)


RECIPES = {
    "fresh_300": "fewer Euler steps, level with many",
    "still_300": "the same, cheaper",
    "reflow": "4 Euler steps and no others",
    "chains": "every step a chain's, at hardly any cost",
    "soar": "SOAR, without guidance",
    "input_perturbation": "no forward pass at all (input perturbation)",
}
"""A picture of each in docs/when_to_roll_out.md: its wish."""


def recipe_plot(rows: dict[Any, Row], path: Path, data: str = "digits", budget: str = "short") -> None:
    """What each recipe does at each number of evaluations and with each solver: bars up are worse, bars down better."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(3, 2, figsize=(11, 9), sharex=True, sharey=True)
    for axis, (arm, wish) in zip(axes.flat, RECIPES.items(), strict=True):
        means = [interval(ratios(rows, data, budget, arm, column, "forwards"))[0] for column in SHOWN]
        changes = [mean - 1 for mean in means]
        colours = ["tab:green" if change < 0 else "tab:red" for change in changes]
        axis.bar(range(len(SHOWN)), changes, bottom=1, color=colours, width=0.6)
        for place, mean in enumerate(means):
            axis.annotate(
                f"{mean:.2f}", (place, mean), (0, 4 if mean > 1 else -13), textcoords="offset points", ha="center"
            )
        axis.axhline(1, color="black", linewidth=1)
        axis.set(title=wish, yscale="log", ylim=(0.5, 1.8))
        axis.set_yticks(TICKS, [str(tick) for tick in TICKS])
        axis.set_yticks([], minor=True)
        axis.set_xticks(range(len(SHOWN)), [column.replace("_", "\n") for column in SHOWN])
    figure.supylabel("distance over teacher forcing of as many forwards", fontsize=12)
    figure.tight_layout()
    figure.savefig(path, dpi=100)


TABLE = re.compile(r"(<!-- table: (\w+) (\w+) (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def with_tables(page: str, rows: dict[Any, Row]) -> str:
    """The page with its tables as the results have them now."""

    def table(found: re.Match[str]) -> str:
        head, data, budget, kind, end = found.groups()
        if kind == "corrections":
            made = corrections_table(budget)
        elif kind == "solvers":
            made = solvers_table(rows, data, budget)
        elif kind == "guidance":
            made = guidance_table(data)
        elif kind == "fast":
            made = fast_table(data, int(budget))
        elif kind == "few":
            length, _, count = budget.partition("_")
            made = few_table(data, length, int(count))
        elif kind == "measures":
            made = other_table(rows, data, budget, "euler_8")
        else:
            made = ratio_table(rows, data, budget, kind)
        return f"{head}{made}\n{end}"

    return TABLE.sub(table, page)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page", type=Path, help="whose tables are written anew")
    parser.add_argument("--images", type=Path, help="folder for the plots")
    parser.add_argument("--plotted", nargs="+", choices=ARMS, default=["fresh_300", "fresh_200_ema", "reflow"])
    options = parser.parse_args()
    rows = kept()
    if options.page:
        options.page.write_text(with_tables(options.page.read_text(encoding="utf-8"), rows), encoding="utf-8")
    else:
        for data, budget in sorted({(key[0], key[1]) for key in rows}):
            print(f"\n### {data}, {budget}\n\n{ratio_table(rows, data, budget, 'seconds')}")
    if options.images:
        plot(rows, options.plotted, options.images / "evidence.png")
        recipe_plot(rows, options.images / "recipes.png")


if __name__ == "__main__":
    main()
