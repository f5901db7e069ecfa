"""What a workflow would train, in words, without running it: what the nodes say when they run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..data.preflight import images_in_words
from ..data.reading.images import ImageFolder
from ..data.run_preflight import rollouts_in_words, schedule_in_words, targets_in_words
from ..data.shards.images import ShardImages
from ..data.shards.preflight import shards_in_words
from ..data.step_preflight import largest, step_in_words
from ..diffusion.rollout import RolloutPlan
from ..hosts.current import current_host
from ..hosts.device import memory_of
from ..models.loading.pretrained import Pretrained
from ..training.optimizers import OptimizerSettings
from ..training.options import TrainingOptions
from .base import Node
from .data.dataset import ImageFolderDataset
from .data.encode import EncodeDataset, encoding_of, words_on
from .data.shards import ShardDataset
from .inputs import defaults, settings_in
from .models.adapter import AddLora
from .models.pretrained import LoadPretrained
from .results.sample_prompts import SamplePrompts
from .rollouts.rollout import Rollout
from .training.optimizer import Optimizer
from .training.optimizer_step import OptimizerStep

Prompt = Mapping[str, Mapping[str, Any]]
"""A graph in API format, validated."""


class Failing(str):
    """A line that says why the run will fail."""


def preflight(prompt: Prompt, *, data: bool = False) -> list[str]:
    """One line, or several with an indent, for each data set and each run that there is something to say of.

    ``data`` = look into the folders of images and the small files of models too. What cannot be known is left out.
    A data set that cannot be read is a :class:`Failing` line.
    """
    found = Graph(prompt)
    said = [*(data_in_words(found) if data else ()), *runs_in_words(found, data)]
    return [type(lines[0])(f"node {node_id} ({name}): " + "\n  ".join(lines)) for node_id, name, lines in said if lines]


@dataclass(frozen=True)
class Graph:
    """Nodes by their class, and what they are wired to."""

    prompt: Prompt

    def of(self, kind: type[Node]) -> Iterator[str]:
        """Ids of all nodes of a class."""
        return (node_id for node_id, node in self.prompt.items() if node["class_type"] == kind.NODE_ID)

    def inputs(self, node_id: str) -> Mapping[str, Any]:
        """The inputs of a node, widgets that are left out by their defaults."""
        given: Mapping[str, Any] = self.prompt[node_id]["inputs"]
        return given

    def origin(self, node_id: str, name: str) -> str | None:
        """The node that an input is wired to."""
        value = self.inputs(node_id).get(name)
        return str(value[0]) if isinstance(value, list) and str(value[0]) in self.prompt else None

    def above(self, node_id: str) -> list[str]:
        """A node and all that it depends on."""
        seen, waiting = [], [node_id]
        while waiting:
            current = waiting.pop()
            if current in self.prompt and current not in seen:
                seen.append(current)
                waiting += [str(value[0]) for value in self.inputs(current).values() if isinstance(value, list)]
        return seen

    def value(self, node_id: str, kind: Any, **more: Any) -> Any:
        """What a node gives that reads small files only; raises ValueError where it cannot."""
        plain = {name: value for name, value in self.inputs(node_id).items() if not isinstance(value, list)}
        return kind().build(**{**defaults(kind), **plain, "unique_id": node_id, **more})["result"]

    def pretrained(self, node_id: str) -> Pretrained | None:
        """The model whose encoders or network a node takes; None where it is not here."""
        loader = next((one for one in self.above(node_id) if one in {*self.of(LoadPretrained)}), None)
        try:
            return self.value(loader, LoadPretrained)[2] if loader else None
        except (OSError, ValueError):
            return None


def data_in_words(graph: Graph) -> Iterator[tuple[str, str, list[str]]]:
    """Each folder of images, and each data set of shards, as the model reads it that it is encoded for."""
    found = [(node_id, kind) for kind in (ImageFolderDataset, ShardDataset) for node_id in graph.of(kind)]
    for node_id, kind in found:
        try:
            stream = graph.value(node_id, kind)[0]
        except (OSError, TypeError, ValueError) as error:
            yield node_id, kind.DISPLAY_NAME, [Failing(error)]
            continue
        encoders = [one for one in graph.of(EncodeDataset) if graph.origin(one, "dataset") == node_id]
        images, batch_size = stream.inputs["dataset"], stream.inputs["batch_size"]
        if not encoders:
            yield node_id, kind.DISPLAY_NAME, pictures_in_words(images, batch_size)
        for encoder in encoders:
            yield encoder, EncodeDataset.DISPLAY_NAME, encoded_in_words(graph, encoder, images, batch_size)


def pictures_in_words(images: ImageFolder | ShardImages, batch_size: int, reads_text: bool | None = None) -> list[str]:
    """What was found, and what training will do with it; ``reads_text``: whether the model reads captions."""
    if isinstance(images, ShardImages):
        return shards_in_words(images, batch_size, reads_text)
    return images_in_words(images, batch_size, reads_text)


def encoded_in_words(graph: Graph, node_id: str, images: Any, batch_size: int) -> list[str]:
    """What Encode Dataset would say; without its model, what can be said of the images alone."""
    pretrained = graph.pretrained(node_id)
    if pretrained is None:
        return [*pictures_in_words(images, batch_size, True), "the model is not here, so its tokens cannot be counted"]
    try:
        encoding = encoding_of(images, pretrained, {**defaults(EncodeDataset), **graph.inputs(node_id)})
    except ValueError as error:
        return [*pictures_in_words(images, batch_size, not pretrained.info.classes), str(error)]
    return words_on(encoding, batch_size)


def runs_in_words(graph: Graph, data: bool) -> Iterator[tuple[str, str, list[str]]]:
    """Each run: what of its settings comes to nothing."""
    for node_id in graph.of(OptimizerStep):
        steps = graph.inputs(node_id).get("steps", defaults(OptimizerStep)["steps"])
        if not isinstance(steps, int):
            continue
        lines, above = [], graph.above(node_id)
        for part in (part for part in above if part in {*graph.of(Rollout)}):
            lines += rollouts_in_words(settings(graph, part, Rollout, RolloutPlan), steps)
        for part in (part for part in above if part in {*graph.of(Optimizer)}):
            lines += schedule_in_words(settings(graph, part, Optimizer, OptimizerSettings), steps)
        for part in (part for part in above if data and part in {*graph.of(AddLora)}):
            lines += adapter_in_words(graph, part)
        if data:
            lines += memory_in_words(graph, node_id, above)
        yield node_id, OptimizerStep.DISPLAY_NAME, lines


def memory_in_words(graph: Graph, node_id: str, above: list[str]) -> list[str]:
    """What a step needs, where model and images are here and each adapter is a new one."""
    pretrained = graph.pretrained(node_id)
    encoder = next((one for one in graph.of(EncodeDataset) if one in above), None)
    folder = graph.origin(encoder, "dataset") if encoder else None
    optimizer = next((one for one in graph.of(Optimizer) if one in above), None)
    kind = next((kind for kind in (ImageFolderDataset, ShardDataset) if folder in {*graph.of(kind)}), None)
    if pretrained is None or encoder is None or folder is None or kind is None or optimizer is None:
        return []
    try:
        put_on = [adapter_of(graph, part) for part in above if part in {*graph.of(AddLora)}]
        adapters = [stream.inputs["asked"] for stream in put_on]
        drawn = [graph.inputs(part).get("guidance") for part in above if part in {*graph.of(SamplePrompts)}]
        guided = any(not isinstance(one, (int, float)) or one > pretrained.info.kind.guided_above for one in drawn)
        images = graph.value(folder, kind)[0].inputs
        factor = encoding_of(
            images["dataset"], pretrained, {**defaults(EncodeDataset), **graph.inputs(encoder)}
        ).encoders.factor
        about = images["dataset"].info
        size = (about.size // factor, about.size // factor) if about.size else largest(about, factor)
        return step_in_words(
            pretrained, adapters, size, images["batch_size"], settings(graph, optimizer, Optimizer, OptimizerSettings),
            settings_in({**defaults(OptimizerStep), **graph.inputs(node_id)}, TrainingOptions),
            memory_of(current_host().device),
            reads_anew=any(stream.inputs["read_anew"] for stream in put_on), guided=guided,
        )  # fmt: skip
    except (KeyError, OSError, TypeError, ValueError):
        return []


def settings(graph: Graph, node_id: str, node: Any, kind: Any) -> Any:
    """The settings that a node's widgets make; what comes by a wire is as usual."""
    values = {**defaults(node), **graph.inputs(node_id)}
    return settings_in({name: value for name, value in values.items() if not isinstance(value, list)}, kind)


def adapter_of(graph: Graph, node_id: str) -> Any:
    """The stream of an adapter; raises ValueError where its model is not here."""
    loader = next((one for one in graph.above(node_id) if one in {*graph.of(LoadPretrained)}), None)
    if loader is None:
        raise ValueError("no model is wired to it")
    return graph.value(node_id, AddLora, model=graph.value(loader, LoadPretrained)[0])[0]


def adapter_in_words(graph: Graph, node_id: str) -> list[str]:
    """What an adapter's targets miss, where its model is here."""
    try:
        stream = adapter_of(graph, node_id)
    except (OSError, ValueError):
        return []
    if "asked" not in stream.inputs:
        return []
    return targets_in_words(stream.inputs["asked"], stream.inputs["names"])
