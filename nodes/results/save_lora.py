"""Save LoRA: what was trained, as a file that other tools load."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from ...files.whole import reserved
from ...hosts.current import current_host
from ...models.adapters.dora import frozen_weights
from ...models.adapters.export import export_hosted, export_lora
from ...models.adapters.formats import Format
from ...models.adapters.metadata import About, base_of
from ...models.adapters.names import names_in
from ...models.adapters.saved import adapter_files
from ...models.loading.pretrained import Pretrained
from ...models.loading.source import DTYPES
from ...models.saving import hosted_file
from ...models.schedule_file import load_schedule
from ...training.state import facts_in
from ...training.stream import Stream
from ..base import CATEGORY, MODEL, Node, workflow_metadata
from ..inputs import checked_name, choice, line, plain_name, switch, wire
from ..models.hosted import trained_lora
from ..models.model import ModelInfo


class SaveLora(Node):
    NODE_ID = "RolloutSaveLora"
    DISPLAY_NAME = "Save LoRA"
    CATEGORY = f"{CATEGORY}/results"
    DESCRIPTION = (
        "Writes the trained adapter as one safetensors file: for ComfyUI, for diffusers, or in kohya's format, which "
        "most other tools read. Inside ComfyUI it lands in models/loras, ready for Load LoRA."
    )
    SEARCH_ALIASES = ("export lora", "safetensors", "kohya", "write lora", "download", "loras")
    RETURN_TYPES = ()
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "model": wire(MODEL, "The trained model, from Optimizer Step."),
                "name": line("my_lora", "File name. A number is added, so nothing is overwritten."),
                "format": choice(
                    ("comfyui", "diffusers", "kohya"),
                    "comfyui",
                    "comfyui: ComfyUI's own names. diffusers: for load_lora_weights. kohya: sd-scripts' names, which "
                    "A1111, Forge and others read; ComfyUI too.",
                ),
                "dtype": choice(
                    ("fp16", "bf16", "fp32"), "fp16", "Number format. fp32 is exact and twice as large as the others."
                ),
                "embed_workflow": switch(
                    True,
                    "Put the workflow into the file: dropped on the canvas, it brings the graph back. Off: nobody sees "
                    "your prompts and paths.",
                ),
            },
            "optional": {
                "title": line("", "Shown by model managers. Empty: the file name.", advanced=True),
                "author": line("", "Your name, as you want to be found.", advanced=True),
                "description": line("", "What it does.", advanced=True),
                "trigger": line(
                    "", "The words in a prompt that call it up. Empty: as in Encode Dataset.", advanced=True
                ),
            },
            "hidden": {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"},
        }

    @classmethod
    def VALIDATE_INPUTS(cls, name: str) -> bool | str:
        return plain_name(name and name.strip(), "file")

    def build(
        self,
        model: Stream,
        name: str,
        format: Format,
        dtype: str,
        embed_workflow: bool,
        title: str = "",
        author: str = "",
        description: str = "",
        trigger: str = "",
        prompt: Any = None,
        extra_pnginfo: Any = None,
    ) -> dict[str, Any]:
        name = checked_name(name.strip().removesuffix(".safetensors"), "file")
        extra = workflow_metadata(prompt, extra_pnginfo) | settings_metadata(prompt) if embed_workflow else {}
        trigger = trigger or (trigger_word(prompt) if embed_workflow else "")
        about = partial(About, author=author, description=description, trigger=trigger)
        if model.about.hosted is not None:
            hosted, _ = trained_lora(model)
            with reserved(current_host().model_folders("loras")[0], name, ".safetensors") as path:
                export_hosted(
                    hosted_file(model.about.trained),
                    path,
                    format,
                    DTYPES[dtype],
                    hosted.facts.family,
                    about(title or name),
                    run_facts(model.about.trained.parent, prompt),
                    extra,
                )
            return {"ui": {"text": [str(path)]}}
        pretrained, folder = trained_adapter(model)
        names, base = names_in(pretrained, text_encoders=True), base_of(pretrained, load_schedule(folder))
        files, written = adapter_files(folder), []
        for adapter, source in files.items():
            stem = name if len(files) == 1 else f"{name}_{adapter}"
            with reserved(current_host().model_folders("loras")[0], stem, ".safetensors") as path:
                saved = export_lora(
                    source,
                    path,
                    format,
                    names,
                    part=pretrained.info.kind.network_part,
                    dtype=DTYPES[dtype],
                    base=base,
                    about=about(title or stem),
                    run=run_facts(folder.parent, prompt),
                    extra=extra,
                    weights=lambda layers: frozen_weights(pretrained, layers),
                )
            written.append(saved)
        return {"ui": {"text": [str(path) for path in written]}}


def trained_adapter(model: Stream) -> tuple[Pretrained, Path]:
    """The base model, and the folder with its trained adapters. Raises ValueError for anything else."""
    info: ModelInfo = model.about
    if info.pretrained is None or not info.adapters:
        raise ValueError("model: there is no adapter on it; put Add LoRA before the training, or wire Save Model")
    if info.trained is None:
        raise ValueError("model: its adapter is not trained yet; wire the model that Optimizer Step gives")
    return info.pretrained, info.trained


TRAINING = ("Rollout", "RolloutNoisyBatch", "RolloutDiffusionLoss", "RolloutReflexFlowLoss", "RolloutOptimizer",
            "RolloutOptimizerStep")  # fmt: skip
"""The nodes that say how it was trained."""


def settings(prompt: Any) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """``(node id, class, values of its widgets)`` of the nodes that say how it was trained."""
    for node_id, node in (prompt or {}).items():
        if node.get("class_type") in TRAINING:
            values = {key: value for key, value in node["inputs"].items() if not isinstance(value, list | dict)}
            yield node_id, node["class_type"], values


def settings_metadata(prompt: Any) -> dict[str, str]:
    """How it was trained, in a few lines that people can read without the whole workflow."""
    told = {node_id: {"node": kind, **values} for node_id, kind, values in settings(prompt)}
    return {"rollout": json.dumps(told)} if told else {}


def trigger_word(prompt: Any) -> str:
    """The word that Encode Dataset put before the captions, if it did."""
    words = (node["inputs"].get("trigger_word") for node in (prompt or {}).values() if "trigger_word" in node["inputs"])
    return next((word for word in words if isinstance(word, str) and word), "")


KOHYA = {
    "learning_rate": "learning_rate",
    "optimizer": "optimizer",
    "lr_schedule": "lr_scheduler",
    "warmup_steps": "lr_warmup_steps",
    "clip_norm": "max_grad_norm",
    "accumulation": "gradient_accumulation_steps",
    "precision": "mixed_precision",
    "steps": "max_train_steps",
}
"""Our widgets, and what sd-scripts calls the same."""


def run_facts(run: Path, prompt: Any) -> dict[str, Any]:
    """Facts of the run for kohya's fields: what was asked for, and what was done."""
    widgets = {key: value for _, _, values in settings(prompt) for key, value in values.items()}
    asked = {theirs: widgets[ours] for ours, theirs in KOHYA.items() if ours in widgets}
    done = facts_in(run)
    names = {"steps_done": "steps", "seed": "seed", "started": "training_started_at"}
    return asked | {theirs: done[ours] for ours, theirs in names.items() if ours in done}
