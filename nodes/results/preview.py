"""Looking: latents on their way through the step, and curves of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...diffusion.rollout import NoisyBatch
from ...hosts.current import current_host
from ...runs.metrics_file import read_metrics
from ...runs.pictures.plots import plot_metrics
from ...runs.pictures.preview import colours_of, picture_of_latents, picture_of_rollout
from ...training.stream import Step
from ..base import BATCH, CATEGORY, RUN, Node, StepNode, shown
from ..inputs import UNIQUE_ID, choice, line, number, switch, wire


class PreviewLatents(StepNode):
    NODE_ID = "RolloutPreviewLatents"
    DISPLAY_NAME = "Preview Latents"
    CATEGORY = f"{CATEGORY}/results"
    DESCRIPTION = (
        "Shows what passes along the wire while training, and passes it on unchanged. Put it between any two nodes "
        "that exchange a batch."
    )
    SEARCH_ALIASES = ("inspect", "debug", "view latents")
    RETURN_TYPES = (BATCH,)
    RETURN_NAMES = ("batch",)
    OUTPUT_TOOLTIPS = ("The same batch.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "batch": wire(BATCH, "What to look at."),
                "show": choice(
                    ("x", "latents", "noise", "teacher_forced", "rollout"),
                    "x",
                    "x: what the model trains on. latents: the clean images. teacher_forced: perfectly noised. "
                    "rollout: teacher-forced, rolled-out and difference, one below the other.",
                ),
            },
            "hidden": UNIQUE_ID,
        }

    def step(self, step: Step, batch: NoisyBatch, show: str) -> NoisyBatch:
        if show == "rollout":
            step.show("preview", lambda: picture_of_rollout(batch, colours_of(step.run)))
        else:
            step.show("preview", lambda: picture_of_latents(getattr(batch, show), colours=colours_of(step.run)))
        return batch


class PlotMetrics(Node):
    NODE_ID = "RolloutPlotMetrics"
    DISPLAY_NAME = "Plot Metrics"
    CATEGORY = f"{CATEGORY}/results"
    DESCRIPTION = "Draws curves of a finished run, and keeps them as metrics.png in its folder."
    SEARCH_ALIASES = ("loss curve", "graph", "chart")
    RETURN_TYPES = ()
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "run": wire(RUN, "The run, from Optimizer Step."),
                "metrics": line(
                    "loss, learning_rate",
                    "Which numbers, as named in metrics.jsonl: loss, gradient_norm, drift, rollout_probability ...",
                ),
                "smoothing": number(0.9, 0.0, 0.999, 0.01, "0 draws the curve as measured; 0.99 smooths a lot."),
                "log_scale": switch(False, "Logarithmic axis: shows late, small changes."),
            },
        }

    def build(self, run: Path, metrics: str, smoothing: float, log_scale: bool) -> dict[str, Any]:
        rows = read_metrics(run)
        names = [name.strip() for name in metrics.split(",") if name.strip()]
        known = sorted({name for row in rows for name, value in row.items() if isinstance(value, (int, float))})
        drawn = [name for name in names if name in known]
        if not drawn:
            raise ValueError(f"metrics: this run has no {metrics!r}, but {', '.join(known)}")
        path = run / "metrics.png"
        plot_metrics(rows, drawn, log_scale=log_scale, smoothing=smoothing).save(path)
        missing = [f"this run has no {name}" for name in names if name not in known]
        said = {"text": missing} if missing else {}  # an empty text would stand for the picture in some clients
        return {"ui": {**said, **shown(current_host(), path)}}
