"""ComfyUI's own MODEL: trained with all that trains here, and back on ComfyUI's wires."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from ...diffusion import seeds
from ...files.weights import read_weights
from ...hosts.comfyui_model import KINDS, patched
from ...hosts.current import current_host
from ...models.adapters.existing import find_lora
from ...models.hosted import TARGETS, HostedAdapter, HostedModel, HostedNetwork
from ...models.saving import hosted_file
from ...training.stream import Step, Stream
from ..base import CATEGORY, MODEL, PIPELINE, SCHEDULE, Node, StepNode
from ..inputs import UNIQUE_ID, choice, integer, line, number, refusal, switch, wire
from .adapter import CUSTOM, adapter_name, layers_in
from .model import ModelInfo

log = logging.getLogger(__name__)


class TrainComfyModel(StepNode):
    NODE_ID = "RolloutFromComfyModel"
    DISPLAY_NAME = "Train ComfyUI Model"
    CATEGORY = f"{CATEGORY}/model"
    DESCRIPTION = (
        "Makes a model to train of ComfyUI's own MODEL, whatever its family, with an adapter on it (LoRA, LoKr, LoHa). "
        "The MODEL stays as it is: training takes a copy, so it needs the memory once more. Works inside ComfyUI only."
    )
    SEARCH_ALIASES = (
        "lora",
        "train lora",
        "fine-tune",
        "any model",
        "lokr",
        "loha",
        "rank",
        "alpha",
        "gradient checkpointing",
        "wan",
        "qwen",
        "z-image",
        "hidream",
        "chroma",
    )
    RETURN_TYPES = (MODEL, SCHEDULE, PIPELINE)
    RETURN_NAMES = ("model", "schedule", "pipeline")
    OUTPUT_TOOLTIPS = (
        "The model with its adapter, for Rollout, losses and Optimizer Step.",
        "The noise schedule it was made with.",
        "Its CLIP and VAE, for Encode Dataset, Images to Dataset and Sample Prompts.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "model": wire("MODEL", "From Load Checkpoint or Load Diffusion Model; LoRAs on it stay on."),
                "kind": choice(
                    tuple(KINDS), "lora", "lora: what everybody can load. lokr and loha: smaller, or more expressive."
                ),
                "rank": integer(
                    16, 1, 4096, "How much it can learn, and its size: 8 to 32 for a person or a style, more for more."
                ),
                "alpha": number(16.0, 0.01, 4096.0, 1.0, "Strength: the adapter counts alpha / rank times."),
                "targets": choice(
                    (*TARGETS, CUSTOM),
                    "attention",
                    "Which layers get one. attention: the usual ones. all: every layer of every block. custom: those "
                    "named in pattern.",
                ),
                "gradient_checkpointing": switch(
                    True, "Compute blocks of the network twice instead of remembering them: slower, far smaller."
                ),
            },
            "optional": {
                "clip": wire("CLIP", "To encode captions and prompts."),
                "vae": wire("VAE", "To encode images, and to show samples."),
                "pattern": line(
                    "",
                    "For custom: ends of layer names, with commas (attn.qkv, attn.proj), or a regular expression for "
                    "whole names, as they are below diffusion_model.",
                ),
                "continue_from": line(
                    "",
                    "An existing LoRA to train further: a file from the loras folder, a path, or a run's folder. Kind, "
                    "rank, alpha and layers are then taken from it.",
                ),
                "lora": wire("LORA_MODEL", "The same from a wire, in place of continue_from."),
                "guidance": number(
                    1.0, 0.0, 100.0, 0.1, "FLUX dev and others that are told a guidance: while it is trained.",
                    advanced=True,
                ),
                "offloading": switch(
                    False,
                    "Keep the network's weights in ordinary memory and bring in each layer when it computes: slower, "
                    "for networks that are too large for the card. Needs gradient_checkpointing.",
                    advanced=True,
                ),
            },
            "hidden": UNIQUE_ID,
        }  # fmt: skip

    @classmethod
    def VALIDATE_INPUTS(cls, targets: str, pattern: str = "", continue_from: str = "") -> bool | str:
        if targets is not None and targets not in (*TARGETS, CUSTOM):
            return f"targets: {targets!r} is none of {', '.join((*TARGETS, CUSTOM))}"
        try:
            if targets == CUSTOM and pattern is not None and not continue_from:
                layers_in(pattern)
        except ValueError as error:
            return str(error)
        if continue_from:
            return refusal("continue_from", lambda: find_lora(current_host(), continue_from.strip())) or True
        return True

    @classmethod
    def IS_CHANGED(cls, continue_from: str = "", **other: Any) -> Any:
        return find_lora(current_host(), continue_from.strip()).stat().st_mtime_ns if continue_from else ""

    def build(
        self,
        unique_id: str,
        model: Any,
        targets: str,
        clip: Any = None,
        vae: Any = None,
        pattern: str = "",
        continue_from: str = "",
        lora: Mapping[str, Tensor] | None = None,
        guidance: float = 1.0,
        **options: Any,
    ) -> dict[str, Any]:
        hosted = HostedModel(model, clip, vae, guidance)
        name, schedule = adapter_name(unique_id), hosted.schedule
        chosen = layers_in(pattern) if targets == CUSTOM else TARGETS[targets]
        adapter = HostedAdapter(name, targets=chosen, weights=lora, **options)
        if continue_from.strip() and lora is None:
            adapter = replace(adapter, weights=read_weights(find_lora(current_host(), continue_from.strip())))
        about = ModelInfo(hosted.facts.channels, None, 0, has_weights=True, adapters=(name,), hosted=hosted)
        stream = self.stream(unique_id, {"hosted": hosted, "adapter": adapter}, about=about)
        text = [f"{hosted.facts.variant}, {adapter.in_words(model)}"]
        return {"ui": {"text": text}, "result": (stream, schedule, hosted)}

    def step(self, step: Step, hosted: HostedModel, adapter: HostedAdapter) -> HostedNetwork:
        return step.keep(lambda: self._make(step, hosted, adapter))

    def _make(self, step: Step, hosted: HostedModel, adapter: HostedAdapter) -> HostedNetwork:
        network = HostedNetwork(hosted, adapter, seeds.derive(step.run.seed, step.node_id, "adapter"))
        count = sum(weight.numel() for weight in network.network.parameters())
        log.info("node %s (%s): %s trained weights", step.node_id, self.DISPLAY_NAME, f"{count:,}")
        return network


class TrainedComfyModel(Node):
    NODE_ID = "RolloutToComfyModel"
    DISPLAY_NAME = "Trained ComfyUI Model"
    CATEGORY = f"{CATEGORY}/results"
    DESCRIPTION = (
        "What was trained on a ComfyUI MODEL, back on ComfyUI's wires: the LoRA alone, and the MODEL with it, for "
        "KSampler and all others."
    )
    SEARCH_ALIASES = ("apply lora", "lora model", "ksampler")
    RETURN_TYPES = ("MODEL", "LORA_MODEL")
    RETURN_NAMES = ("model", "lora")
    OUTPUT_TOOLTIPS = ("The MODEL with the LoRA on it.", "The LoRA, for ComfyUI's Load LoRA Model and Save LoRA.")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "model": wire(MODEL, "The trained model, from Optimizer Step."),
                "strength": number(1.0, -100.0, 100.0, 0.05, "How strongly the LoRA counts in the MODEL."),
            }
        }

    def build(self, model: Stream, strength: float) -> tuple[Any, dict[str, Tensor]]:
        hosted, lora = trained_lora(model)
        return patched(hosted.model, lora, strength), lora


def trained_lora(model: Stream) -> tuple[HostedModel, dict[str, Tensor]]:
    """The MODEL that was trained, and its adapter by ComfyUI's names. Raises ValueError for any other model."""
    info: ModelInfo = model.about
    if info.hosted is None:
        raise ValueError("model: this one was not made by Train ComfyUI Model; use Save LoRA and Load LoRA")
    if info.trained is None:
        raise ValueError("model: it is not trained yet; wire the model that Optimizer Step gives")
    return info.hosted, read_weights(hosted_file(info.trained))
