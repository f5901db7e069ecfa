"""Curves of a run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ...diffusion.exposure_bias import LevelStatistics

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(width: float, height: float) -> Figure:
    """A figure of its own, in inches of 100 pixels: pyplot would keep every one it ever made."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=100, layout="constrained")


def drawn(figure: Figure) -> Image.Image:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def smoothed(values: Sequence[float], keep: float) -> list[float]:
    """Exponential moving average without start-up bias; ``keep`` = 0 is no smoothing, 0.99 a lot."""
    result, average, weight = [], 0.0, 0.0
    for value in values:
        average, weight = keep * average + (1 - keep) * value, keep * weight + (1 - keep)
        result.append(average / weight)
    return result


SELDOM = {"validation_loss"}
"""Numbers that are measured now and then, without chance: drawn as they are, each with a dot."""


def plot_metrics(
    rows: Sequence[dict[str, Any]], names: Sequence[str], *, log_scale: bool = False, smoothing: float = 0.9
) -> Image.Image:
    """One panel per metric over the training step: faint as measured, strong smoothed.

    The loss's spikes are marked, as its rows say (:mod:`~comfyui_rollout.training.metrics`), and so are the steps that
    were left out.
    """
    skipped = [row["step"] for row in rows if row.get("skipped")]
    spikes = {row["step"] for row in rows if row.get("spike")}
    figure = new_figure(7, 2.6 * max(1, len(names)))
    for place, name in enumerate(names):
        points = [(row["step"], row[name]) for row in rows if isinstance(row.get(name), (int, float))]
        axes = figure.add_subplot(max(1, len(names)), 1, place + 1)
        steps, values = [step for step, _ in points], [value for _, value in points]
        if name in SELDOM:
            axes.plot(steps, values, "o-", color="#1d4ed8", linewidth=1.6, ms=3)
        else:
            axes.plot(steps, values, color="#3b82f6", alpha=0.3, linewidth=0.8)
            alone = "o" if len(values) == 1 else None
            axes.plot(steps, smoothed(values, smoothing), color="#1d4ed8", linewidth=1.6, marker=alone, ms=4)
        if name == "loss":
            high = [(step, value) for step, value in points if step in spikes]
            axes.plot([step for step, _ in high], [value for _, value in high], "v", color="#dc2626", ms=4)
        if name.startswith("loss"):
            for step in skipped:
                axes.axvline(step, color="#f59e0b", linewidth=0.8)
        axes.set_title(name.replace("_", " "), fontsize=10, loc="left")
        axes.grid(alpha=0.25)
        axes.locator_params("x", integer=True)
        if len(steps) == 1:
            axes.set_xticks(steps)
        if len({*values}) == 1:  # around a constant there is nothing to see: no numbers that it never was
            axes.set_yticks(values[:1])
        if log_scale and values and min(values) > 0:
            axes.set_yscale("log")
    if figure.axes:
        figure.axes[-1].set_xlabel("training step")
    return drawn(figure)


def plot_levels(path: Sequence[LevelStatistics]) -> Image.Image:
    """Ratios sampled / teacher-forced over the noise level, with the band within which chance alone moves them."""
    bands = [name for name in path[0].sampled if name.startswith("band_")]
    panels = {"variance": ["variance"], "size of the network's output": ["output"], "power by frequency": bands}
    figure = new_figure(7, 7.6)
    axes = figure.subplots(len(panels), 1, sharex=True)
    timesteps = [level.timestep for level in path]
    for panel, (title, names) in zip(axes, panels.items(), strict=True):
        floor = [max(abs(level.log_floor(name)) for name in names) for level in path]
        low, high = [math.exp(-value) for value in floor], [math.exp(value) for value in floor]
        panel.fill_between(timesteps, low, high, color="#999999", alpha=0.3, linewidth=0, label="chance")
        for name in names:
            ratios = [math.exp(level.log_ratio(name)) for level in path]
            panel.plot(timesteps, ratios, linewidth=1.6, label=name.replace("_", " "))
        panel.axhline(1, color="#444444", linewidth=0.8)
        panel.set_title(f"{title}: sampled / teacher-forced", fontsize=10, loc="left")
        panel.legend(fontsize=8, frameon=False, ncols=5)
        panel.grid(alpha=0.25)
    axes[-1].set_xlabel("timestep (noise on the left, images on the right)")
    axes[-1].invert_xaxis()
    return drawn(figure)
