"""Adapters: small trained weights on top of a frozen model."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...diffusion import seeds
from ...hosts.current import current_host
from ...models.adapters.existing import find_lora, read_lora, text_tensors_in
from ...models.adapters.formats import for_diffusers_alone
from ...models.adapters.layers import AdapterKind, LayerAdapter
from ...models.adapters.names import Names, names_in
from ...models.adapters.network import add_adapter, continue_adapter
from ...models.adapters.settings import AdapterSettings
from ...models.adapters.text_encoders import ATTACHED, attach_text_encoders
from ...models.adapters.text_encoders import TARGETS as TEXT_TARGETS
from ...models.families import PRETRAINED, PretrainedModel
from ...models.loading.pretrained import Pretrained
from ...models.loading.weight_count import in_words, lora_weights, training_bytes
from ...training.stream import Step, Stream
from ..base import CATEGORY, MODEL, StepNode
from ..inputs import UNIQUE_ID, choice, integer, line, number, refusal, switch, wire
from .model import ModelInfo

log = logging.getLogger(__name__)

CUSTOM = "custom"
PRESETS = list(dict.fromkeys(preset for kind in PRETRAINED.values() for preset in kind.lora_targets))

REGULAR_EXPRESSION = re.compile(r"[\\*+?()\[\]{}|^$]")
"""Characters that no layer's name has."""

DIFFUSERS_ALONE = "Save LoRA can write it in the format diffusers only: a loha goes into all of them"


class AddLora(StepNode):
    NODE_ID = "RolloutAddLora"
    DISPLAY_NAME = "Add LoRA"
    CATEGORY = f"{CATEGORY}/model"
    DESCRIPTION = (
        "Puts an adapter (LoRA, LoKr or LoHa) on a pretrained model: the model is frozen, only the adapter is trained. "
        "Several in a row are all trained, each saved in a file of its own."
    )
    SEARCH_ALIASES = (
        "lora",
        "lokr",
        "loha",
        "dora",
        "lycoris",
        "peft",
        "adapter",
        "fine-tune",
        "rank",
        "alpha",
        "dim",
        "network dim",
        "strength",
    )
    RETURN_TYPES = (MODEL,)
    RETURN_NAMES = ("model",)
    OUTPUT_TOOLTIPS = ("The model with its adapter: wire it wherever the model goes.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "model": wire(MODEL, "From Load Pretrained, or from another Add LoRA."),
                "kind": choice(
                    ("lora", "lokr", "loha"),
                    "lora",
                    "lora: what everybody can load. lokr and loha: the LyCORIS kinds, smaller or more expressive.",
                ),
                "rank": integer(
                    16, 1, 4096, "How much it can learn, and its size: 8 to 32 for a person or a style, more for more."
                ),
                "alpha": number(
                    16.0,
                    0.01,
                    4096.0,
                    1.0,
                    "Strength: the adapter counts alpha / rank times. Leave it at the rank, and change the learning "
                    "rate instead.",
                ),
                "targets": choice(
                    [*PRESETS, CUSTOM],
                    "attention",
                    "Which layers get one. attention: the usual ones. all: more to learn, a larger file. custom: those "
                    "named in pattern.",
                ),
            },
            "optional": {
                "pattern": line(
                    "",
                    "For custom: ends of layer names, with commas (attn2.to_k, attn2.to_v), or a regular expression "
                    "for whole names.",
                ),
                "dropout": number(
                    0.0, 0.0, 0.95, 0.05, "Share of the adapter that is switched off in each step, against overfitting."
                ),
                "dora": switch(
                    False, "DoRA: trains the length of each weight vector apart; slower, often better at low rank."
                ),
                "rslora": switch(
                    False,
                    "rsLoRA: alpha counts alpha / sqrt(rank) times, so that high ranks learn as fast as low ones.",
                    advanced=True,
                ),
                "continue_from": line(
                    "",
                    "An existing LoRA to train further: a file from the loras folder, a path, or a run's folder. Kind, "
                    "rank, alpha and layers are then taken from it.",
                ),
                "text_encoders": switch(
                    False,
                    "Train CLIP too (SD 1.x, 2.x and SDXL, kind lora): for a new word or name. Slower, and more "
                    "memory, as the text encoders stay loaded.",
                ),
                "factor": integer(
                    -1,
                    -1,
                    1024,
                    "LoKr: into how many parts the sides of a matrix are cut; more makes a smaller file. -1: near the "
                    "square root.",
                    advanced=True,
                ),
                "strength": number(
                    1.0,
                    0.0,
                    2.0,
                    0.05,
                    "How much of continue_from is put on the model. 1 to train it further; less, or more, to try it.",
                    advanced=True,
                ),
            },
            "hidden": UNIQUE_ID,
        }

    @classmethod
    def VALIDATE_INPUTS(
        cls, kind: AdapterKind | None, targets: str, pattern: str = "", dora: bool = False, rslora: bool = False,
        continue_from: str = "", text_encoders: bool = False,
    ) -> bool | str:  # fmt: skip
        if targets is not None and targets not in (*PRESETS, CUSTOM):
            return f"targets: {targets!r} is none of {', '.join((*PRESETS, CUSTOM))}"
        try:
            if targets == CUSTOM and pattern is not None and not continue_from:
                layers_in(pattern)
            AdapterSettings("x", kind or "lora", dora=bool(dora), rslora=bool(rslora))
            if text_encoders and kind is not None and not continue_from:
                refuse_kind(kind)
        except ValueError as error:
            return str(error)
        if continue_from:
            return refusal("continue_from", lambda: find_lora(current_host(), continue_from.strip())) or True
        return True

    @classmethod
    def IS_CHANGED(cls, continue_from: str = "", **other: Any) -> Any:
        if not continue_from:
            return 0
        return find_lora(current_host(), continue_from.strip()).stat().st_mtime_ns

    def build(
        self,
        unique_id: str,
        model: Stream,
        targets: str,
        pattern: str = "",
        continue_from: str = "",
        strength: float = 1.0,
        text_encoders: bool = False,
        **options: Any,
    ) -> dict[str, Any]:
        pretrained = pretrained_of(model)
        if text_encoders:
            refuse_family(pretrained.info.kind)
        names, name = names_in(pretrained, text_encoders), adapter_name(unique_id)
        inputs: dict[str, Any] = {"read_anew": pretrained if text_encoders else None}
        alone = False
        if continue_from.strip():
            path = find_lora(current_host(), continue_from.strip())
            found = read_lora(path, names, pretrained.info.kind)
            text = f"continues {path.name}: {describe(found)}"
            if text_encoders:
                refuse_without_text(found, path)
            elif left_out := text_tensors_in(path):
                text += f"; its {left_out} tensors for text encoders are left out: turn text_encoders on to train them"
            inputs |= {"path": path, "dropout": options.get("dropout", 0.0), "strength": strength}
        else:
            chosen = targets_of(pretrained, targets, pattern)
            if text_encoders:
                refuse_kind(options["kind"])
                matching(AdapterSettings(name, targets=chosen), names_in(pretrained))
                chosen = with_text_encoders(chosen)
            settings = AdapterSettings(name, targets=chosen, **options)
            layers, asked = matching(settings, names), settings
            if targets == CUSTOM:  # a pattern may fit containers of layers too, which no adapter goes on
                settings = replace(settings, targets="|".join(map(re.escape, layers)))
            shapes = [names.layers[layer] for layer in layers]
            needs = f": {memory_in_words(pretrained, shapes, settings.rank)}" if settings.kind == "lora" else ""
            text = f"{settings.kind} of rank {settings.rank} on {len(layers)} of {len(names.layers)} layers{needs}"
            alone = for_diffusers_alone(layers, settings.kind, names)
            inputs |= {"settings": settings, "asked": asked}
        about: ModelInfo = replace(model.about, adapters=(*model.about.adapters, name))
        stream = self.stream(unique_id, {"model": model, "name": name, "names": names, **inputs}, about=about)
        return {"ui": {"text": [text, *([DIFFUSERS_ALONE] if alone else [])]}, "result": (stream,)}

    def step(self, step: Step, model: PretrainedModel, **inputs: Any) -> PretrainedModel:
        step.keep(lambda: self._add(step, model, **inputs))
        return model

    def _add(
        self,
        step: Step,
        model: PretrainedModel,
        name: str,
        names: Names,
        settings: AdapterSettings | None = None,
        asked: AdapterSettings | None = None,  # as the widgets have it, for whoever judges them
        path: Any = None,
        dropout: float = 0.0,
        strength: float = 1.0,
        read_anew: Pretrained | None = None,
    ) -> int:
        if read_anew is not None:
            attach_text_encoders(model, read_anew)
        if settings is not None:
            numbers = add_adapter(model, settings, seeds.derive(step.run.seed, step.node_id, "adapter"))
        else:
            found = read_lora(path, names, type(model))
            found = {layer: replace(part, scale=part.scale * strength) for layer, part in found.items()}
            numbers = continue_adapter(model, found, names.layers, name, dropout)
        log.info("node %s (%s): %s trained weights", step.node_id, self.DISPLAY_NAME, f"{numbers:,}")
        return numbers


def memory_in_words(pretrained: Pretrained, layers: list[tuple[int, ...]], rank: int) -> str:
    """What is trained, and what training needs beside activations, said before anything is loaded."""
    trained, source = lora_weights(layers, rank), pretrained.source
    words = f"{in_words(trained)} trained weights"
    weights, part = pretrained.weights(), pretrained.info.kind.network_part
    if part not in weights:  # still on the hub
        return words
    return f"{words}, {in_words(training_bytes(weights, source, part, trained), 'B')} in memory beside activations"


def pretrained_of(model: Stream) -> Pretrained:
    """The pretrained model on the wire; raises ValueError where an adapter makes no sense."""
    info: ModelInfo = model.about
    if info.hosted is not None:
        raise ValueError("model: it has its adapter already, from Train ComfyUI Model; set rank and targets there")
    if info.pretrained is None:
        raise ValueError("model: a model that was made here is small and trained whole; wire Load Pretrained")
    if info.trained is not None:
        raise ValueError(
            "model: this one was trained in this graph; to go on with its adapter, put the run's folder into "
            "continue_from and wire Load Pretrained"
        )
    return info.pretrained


def adapter_name(node_id: str) -> str:
    """The adapter's name in the network and in files; peft wants it without dots."""
    return "lora_" + re.sub(r"\W", "_", str(node_id))


def targets_of(pretrained: Pretrained, targets: str, pattern: str) -> tuple[str, ...] | str:
    """Name ends or a regular expression; raises ValueError for a preset that this family does not have."""
    if targets == CUSTOM:
        return layers_in(pattern)
    presets = pretrained.info.kind.lora_targets
    if targets not in presets:
        raise ValueError(f"targets: {pretrained.info.kind.title} has {', '.join(presets)} or custom, not {targets}")
    return presets[targets]


def with_text_encoders(targets: tuple[str, ...] | str) -> tuple[str, ...] | str:
    """The same layers, and those of CLIP."""
    if not isinstance(targets, str):
        return (*targets, *TEXT_TARGETS)
    attached = re.escape(ATTACHED)
    return rf"(?!{attached})(?:{targets})|{attached}.*\.(?:{'|'.join(TEXT_TARGETS)})"


def refuse_family(kind: type[PretrainedModel]) -> None:
    """Raises ValueError where the text encoders cannot be trained."""
    if not kind.trainable_text_parts:
        can = ", ".join(other.title for other in PRETRAINED.values() if other.trainable_text_parts)
        raise ValueError(f"text_encoders: those of {kind.title} cannot be trained here, only those of {can}; turn off")


def refuse_kind(kind: str) -> None:
    """Raises ValueError for an adapter that is not put on text encoders."""
    if kind != "lora":
        raise ValueError(f"text_encoders: they get a lora only, not a {kind}; choose kind lora, or turn it off")


def refuse_without_text(adapter: dict[str, LayerAdapter], path: Path) -> None:
    """Raises ValueError where a file cannot be continued on text encoders."""
    if not any(layer.startswith(ATTACHED) for layer in adapter):
        raise ValueError(f"text_encoders: {path.name} has nothing for them; turn it off to continue this file")
    for part in adapter.values():
        refuse_kind(part.kind)


def layers_in(pattern: str) -> tuple[str, ...] | str:
    """Name ends with commas between them, or a regular expression. Raises ValueError where it is neither."""
    if not pattern.strip():
        raise ValueError("pattern: name the layers, such as attn2.to_k, attn2.to_v, or choose a preset in targets")
    if not REGULAR_EXPRESSION.search(pattern):
        return tuple(filter(None, (end.strip() for end in pattern.split(","))))
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"pattern: {pattern!r} is no regular expression: {error}") from error
    return pattern.strip()


def matching(settings: AdapterSettings, names: Names) -> list[str]:
    """The layers that will get one; raises ValueError, with some names to choose from, where there are none."""
    from peft.tuners.tuners_utils import check_target_module_exists

    config = settings.config()
    layers = [layer for layer in names.layers if check_target_module_exists(config, layer)]
    if not layers:
        some = ", ".join(list(names.layers)[:3])
        raise ValueError(f"pattern: no layer of this model fits {settings.targets!r}; its layers are {some} ...")
    return layers


def describe(adapter: dict[str, LayerAdapter]) -> str:
    """Kind, rank and layers in words."""
    parts = list(adapter.values())
    ranks = sorted({part.rank for part in parts})
    rank = f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {ranks[0]} to {ranks[-1]}"
    return f"{parts[0].kind} of {rank} on {len(parts)} layers"
