"""Measuring what rollouts are meant to cure."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from ...data.data import Batch
from ...data.encodings.texts import concatenated
from ...diffusion import seeds
from ...diffusion.exposure_bias import LevelStatistics, measure, summary
from ...diffusion.schedules import Schedule
from ...diffusion.solvers import SOLVERS, Conditioning, rows, solver
from ...diffusion.solvers import Model as Network
from ...files.whole import new_folder, writable, write_text
from ...hosts.current import current_host
from ...hosts.device import choose_device
from ...models.model import Model
from ...runs.pictures.plots import plot_levels
from ...training.forward import training_mode
from ...training.stream import Run, Step, Stream
from ..base import CATEGORY, DATASET, MODEL, SCHEDULE, Node, shown
from ..inputs import choice, integer, seed, wire
from ..models.model import refuse_untrained


class ExposureBiasProbe(Node):
    NODE_ID = "RolloutExposureBiasProbe"
    DISPLAY_NAME = "Exposure Bias Probe"
    CATEGORY = f"{CATEGORY}/results"
    DESCRIPTION = (
        "Measures how far the model drifts when it samples: variance, frequencies and size of the predictions along a "
        "full sampling path, against perfectly noised real images at the same noise levels. A curve at 1 is no bias; "
        "the grey band is what chance alone does."
    )
    SEARCH_ALIASES = ("drift", "evaluation", "metrics")
    RETURN_TYPES = ()
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "model": wire(MODEL, "A model with weights: from Optimizer Step or Load Model."),
                "schedule": wire(SCHEDULE, "The noise schedule that it was trained with."),
                "dataset": wire(DATASET, "Real images to compare with, and their classes."),
                "count": integer(
                    512, 16, 100_000, "Images to sample and to compare with. More lowers the noise floor."
                ),
                "steps": integer(20, 2, 1000, "Steps of the sampling path. Few steps drift more."),
                "sampler": choice(SOLVERS, "euler", "The solver of the sampling path."),
                "order": integer(2, 1, 3, "Order of unipc and dpm; the others ignore it."),
                "seed": seed("Which noise to start from."),
            },
        }

    def build(
        self,
        model: Stream,
        schedule: Schedule,
        dataset: Stream,
        count: int,
        steps: int,
        sampler: str,
        order: int,
        seed: int,
    ) -> dict[str, Any]:
        refuse_untrained(model)
        host = current_host()
        with training_mode():
            run = Run(model, dataset, seed=seed, device=choose_device(host.device), host=host)
            live, batch = run.value(model), some_items(run, dataset, count)
            random, network = seeds.generator(seed, "probe"), in_parts(live, dataset.inputs["batch_size"])
            solve, told = solver(sampler, order), batch.conditioning
            with live.evaluating():
                path = measure(network, schedule, batch.latents, told, solve, steps=steps, generator=random)
        folder = new_folder(writable(host.output_folder / "probes"), "exposure_bias")
        picture = folder / "exposure_bias.png"
        plot_levels(path).save(picture)
        write_text(folder / "exposure_bias.json", json.dumps(findings(path), indent=2))
        return {"ui": {"text": [sentence(path)], **shown(host, picture)}}


def in_parts(model: Model, size: int) -> Network:
    """The network, asked for no more items at once than a batch has."""

    def network(x: Tensor, timestep: Tensor, conditioning: Conditioning) -> Tensor:
        parts = (slice(start, start + size) for start in range(0, len(x), size))
        return torch.cat([model(x[part], timestep[part], rows(conditioning, part)) for part in parts])

    return network


def some_items(run: Run, dataset: Stream, count: int) -> Batch:
    """The first ``count`` items that training would see, as one batch. Raises ValueError if they differ in size."""
    batches: list[Batch] = []
    while sum(len(batch.latents) for batch in batches) < count:
        batches.append(Step(run, len(batches)).value(dataset))
    if len({batch.latents.shape[1:] for batch in batches}) > 1:
        raise ValueError("dataset: statistics are of images of one size; turn buckets off, and clear resolutions")
    latents = torch.cat([batch.latents for batch in batches])[:count]
    conditioning = concatenated([batch.conditioning for batch in batches])
    return Batch(latents, {name: value[:count] for name, value in conditioning.items()})


def findings(path: list[LevelStatistics]) -> dict[str, Any]:
    return {"mean_absolute_log_ratio": summary(path), "levels": [asdict(level) for level in path]}


def sentence(path: list[LevelStatistics]) -> str:
    """The probe's finding in one line."""
    found = summary(path)
    named = (("variance", "variance"), ("output", "output"), ("band_1", "lowest"), ("band_4", "highest frequencies"))
    parts = [f"{title} {found[name]:.1%} (chance {found[f'{name}_floor']:.1%})" for name, title in named]
    return "mean bias over the sampling path: " + ", ".join(parts)
