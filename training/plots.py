"""Curves of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image


def smoothed(values: Sequence[float], keep: float) -> list[float]:
    """Exponential moving average without start-up bias; ``keep`` = 0 is no smoothing, 0.99 a lot."""
    result, average, weight = [], 0.0, 0.0
    for value in values:
        average, weight = keep * average + (1 - keep) * value, keep * weight + (1 - keep)
        result.append(average / weight)
    return result


def plot_metrics(
    rows: Sequence[dict[str, Any]], names: Sequence[str], *, log_scale: bool = False, smoothing: float = 0.9
) -> Image.Image:
    """One panel per metric over the training step: faint as measured, strong smoothed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 2.6 * max(1, len(names))), dpi=100, layout="constrained")
    for place, name in enumerate(names):
        points = [(row["step"], row[name]) for row in rows if isinstance(row.get(name), (int, float))]
        axes = figure.add_subplot(max(1, len(names)), 1, place + 1)
        steps, values = [step for step, _ in points], [value for _, value in points]
        axes.plot(steps, values, color="#3b82f6", alpha=0.3, linewidth=0.8)
        axes.plot(steps, smoothed(values, smoothing), color="#1d4ed8", linewidth=1.6)
        axes.set_title(name.replace("_", " "), fontsize=10, loc="left")
        axes.grid(alpha=0.25)
        if log_scale and values and min(values) > 0:
            axes.set_yscale("log")
    if figure.axes:
        figure.axes[-1].set_xlabel("training step")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
