"""Two nodes that only this bench has: some pictures of a data set, and a LoRA on a network that was made here.

The pack's own Add LoRA is for pretrained pipelines, whose networks are too large for a bench without a GPU. What the
LoRA is put in with, how it is trained and how it is written is the pack's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from comfyui_rollout import NODE_CLASS_MAPPINGS
from comfyui_rollout.data.data import Batch, DatasetInfo, no_class
from comfyui_rollout.diffusion import seeds
from comfyui_rollout.models.adapters.network import add_adapter, merged_weights
from comfyui_rollout.models.adapters.saved import restore_adapters
from comfyui_rollout.models.adapters.settings import AdapterSettings
from comfyui_rollout.models.model import Model
from comfyui_rollout.models.saving import load_model
from comfyui_rollout.nodes.base import MODEL, StepNode
from comfyui_rollout.nodes.data.dataset import DatasetNode
from comfyui_rollout.nodes.inputs import UNIQUE_ID, integer, line, wire
from comfyui_rollout.nodes.models.model import ModelInfo
from comfyui_rollout.training.stream import Step, Stream
from pictures import pictures
from torch import Generator, Tensor

FAMILY = "small"
LORA = AdapterSettings(
    "lora", rank=8, alpha=8.0, targets=("to_q", "to_k", "to_v", "to_out.0", "conv1", "conv2", "time_emb_proj")
)


class Some:
    """Some of the pictures of a data set, with its classes as they are numbered there."""

    def __init__(self, name: str, size: int, items: Tensor) -> None:
        data = pictures(name, size)
        self.latents, self.labels = data.latents[items], data.labels[items]
        self.info = DatasetInfo(name, len(items), data.latents.shape[1], size, data.names, family=FAMILY)

    def batch(self, items: list[int], generators: Sequence[Generator]) -> Batch:
        return Batch(self.latents[items], {"label": self.labels[items]}, negative=no_class)


def items_of(name: str, size: int, left_out: int, count: int, seed: int) -> Tensor:
    """Places (n,) of so many pictures of one class, drawn by the seed; 0 = all pictures of the others."""
    labels = pictures(name, size).labels
    if count == 0:
        return (labels != left_out).nonzero()[:, 0]
    mine = (labels == left_out).nonzero()[:, 0]
    return mine[torch.randperm(len(mine), generator=seeds.generator(seed, "few"))[:count]]


class SomePictures(DatasetNode):
    NODE_ID = "BenchSomePictures"
    DISPLAY_NAME = "Some Pictures"
    DESCRIPTION = "So many pictures of one class, or all of the others."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        numbers = {"left_out": integer(0, 0, 999, "Class."), "count": integer(0, 0, 9999, "0: all of the others.")}
        numbers |= {name: integer(16, 0, 9999, name) for name in ("batch_size", "size", "seed")}
        return {"required": {"data": line("mnist", "Name."), **numbers}, "hidden": UNIQUE_ID}

    def build(
        self, unique_id: str, data: str, batch_size: int, size: int, left_out: int, count: int, seed: int
    ) -> dict[str, Any]:
        return self.batches(unique_id, Some(data, size, items_of(data, size, left_out, count, seed)), batch_size)


class Frozen(ModelInfo):
    """A model of a family, as pretrained ones are: what was trained is put back onto the network that is there."""

    family = FAMILY  # type: ignore[assignment]


class SmallLora(StepNode):
    NODE_ID = "BenchLora"
    DISPLAY_NAME = "LoRA on a small model"
    DESCRIPTION = "A LoRA on a network that was made here."
    RETURN_TYPES = (MODEL,)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        required = {"model": wire(MODEL, "From Load Model."), "folder": line("", "Of a LoRA that it goes on with.")}
        return {"required": required, "hidden": UNIQUE_ID}

    def build(self, unique_id: str, model: Stream, folder: str) -> tuple[Stream]:
        about = Frozen(**{**vars(model.about), "adapters": (LORA.name,)})
        return (self.stream(unique_id, {"model": model, "folder": folder}, about=about),)

    def step(self, step: Step, model: Model, folder: str) -> Model:
        step.keep(lambda: put_in(model, folder, step.run.seed))
        return model


def put_in(model: Model, folder: str | Path, seed: int = 0) -> None:
    """A new LoRA, or the one in that folder."""
    add_adapter(model, LORA, seed)
    if folder:
        restore_adapters(Path(folder), model)


NODE_CLASS_MAPPINGS |= {node.NODE_ID: node for node in (SomePictures, SmallLora)}


def with_lora(base: Path, *folders: Path) -> Model:
    """The network with what was trained on it; of several LoRAs all but the last are merged into its weights."""
    model = load_model(base)
    for folder in folders:
        if model.adapters:
            weights, model = merged_weights(model), load_model(base)
            model.network.load_state_dict(weights)
        put_in(model, folder)
    return model
