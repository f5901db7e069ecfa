"""A SimpleTuner training as a graph of our nodes."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import data, model, rollout, training
from .changes import CHANGES, is_off
from .draft import Draft
from .report import Report
from .settings import Files, Settings
from .table import BACKEND, CONFIG, LYCORIS, ignored

ROOM = {"Rollout": 400, "RolloutNoisyBatch": 190, "RolloutOptimizerStep": 280, "RolloutSamplePrompts": 240}
"""Pixels below the widgets of nodes that draw pictures, by class."""


@dataclass(frozen=True)
class Imported:
    """What became of a configuration."""

    prompt: dict[str, Any]
    """The graph in API format."""
    frames: Mapping[str, Sequence[str]]
    """Node ids by the title of the frame they stand in, from left to right."""
    kept: dict[str, Any]
    """What has no place in the graph, word for word."""
    report: Report

    @property
    def note(self) -> str:
        """Markdown for a note on the canvas."""
        first = "**Change first:** Rollout `max_step_offset`, `probability` and `step_size`, Optimizer Step `steps`."
        return f"## Imported from SimpleTuner\n\n{first}\n{self.report.markdown()}"


def import_config(files: Files) -> Imported:
    """The graph that trains as the configuration says, and what there is to know about it.

    Options that are not set have SimpleTuner's defaults, not ours. Reads no file but the folders of images, to count
    them. Raises ValueError, one line, for a value that cannot be read and for MixFlow with rollouts.
    """
    report = Report(left=list(files.missing))
    draft = Draft(report)
    config = Settings(files.config, CONFIG)
    lycoris = Settings(files.lycoris, LYCORIS, "lycoris_config")
    backends = [Settings(backend, BACKEND, f"data set {number}") for number, backend in enumerate(files.backends, 1)]
    for name in ("data_backend_config", "lycoris_config", "user_prompt_library"):
        config[name]  # the files that these name were read already
    rollout.refuse_mixflow(config)
    flow = model.is_flow_matching(config, report)

    pretrained = model.load_pretrained(draft, config)
    network = [pretrained, 0]
    trains_adapter = config["model_type"] == "lora"
    if trains_adapter:
        network = [model.add_lora(draft, config, lycoris, network), 0]
    dataset = data.datasets(draft, config, backends, pipeline=[pretrained, 2])
    schedule = rollout.schedule(draft, config, flow, pretrained=[pretrained, 1])
    noisy = rollout.noisy_batch(draft, config, dataset.link, schedule)
    rolled = rollout.rollout(draft, config, flow, batch=[noisy, 0], model=network)
    loss = rollout.loss(draft, config, flow, batch=[rolled, 0], model=network)
    optimizer = training.optimizer(draft, config)
    samples = training.sample_prompts(draft, config, files.library, network, pipeline=[pretrained, 2])
    links = {"loss": [loss, 0], "model": network, "optimizer": [optimizer, 0], "samples": samples}
    trained = training.optimizer_step(draft, config, dataset.images, **links)
    training.results(draft, config, trained, schedule, trains_adapter)

    kept = account(report, config, lycoris, backends)
    return Imported(draft.prompt, draft.frames, kept, report)


def account(report: Report, config: Settings, lycoris: Settings, backends: Sequence[Settings]) -> dict[str, Any]:
    """Say of every key that is given what became of it; returns what has no place in the graph, as it was written."""
    parts = {"config": config, "lycoris_config": lycoris}
    kept: dict[str, Any] = {name: rest for name, settings in parts.items() if (rest := account_of(report, settings))}
    rests = [account_of(report, backend) for backend in backends]
    return kept | ({"data_backend_config": rests} if any(rests) else {})


def account_of(report: Report, settings: Settings) -> dict[str, Any]:
    kept = {}
    for key, value in settings.given.items() if not settings.dropped else ():
        said = f"{settings.at(key)} = {textwrap.shorten(json.dumps(value, ensure_ascii=False), 60)}"
        reason = ignored(key)
        if key not in settings.asked and not reason:
            kept[settings.spelled[key]] = value
        if settings.is_default(key) if key in settings.asked else is_off(value):
            report.idle.append(settings.at(key))
        elif key in settings.asked:
            if settings.is_set(key):
                report.mapped.append(f"{said} -> {settings.table[key].goes_to or 'which nodes there are'}")
        elif reason:
            report.ignored.append(f"{settings.at(key)}: {reason}")
        elif key in CHANGES:
            report.changed.append(f"{settings.at(key)}: {CHANGES[key]}")
        else:
            unused = " (not needed with the other options)" if key in settings.table else ""
            report.unmapped.append(said + unused)
    return kept
