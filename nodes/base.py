"""What all our nodes share: names for ComfyUI, and how a node becomes a stream."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..hosts.host import Host
from ..training.stream import Stream

CATEGORY = "training/rollout"

# What our wires carry. A capital name is a socket type, which is ours alone among all node packs.
DATASET = "ROLLOUT_DATASET"
SCHEDULE = "ROLLOUT_SCHEDULE"
MODEL = "ROLLOUT_MODEL"
PIPELINE = "ROLLOUT_PIPELINE"
BATCH = "ROLLOUT_BATCH"
LOSS = "ROLLOUT_LOSS"
OPTIMIZER = "ROLLOUT_OPTIMIZER"
SAMPLES = "ROLLOUT_SAMPLES"
RUN = "ROLLOUT_RUN"


class Node:
    """A ComfyUI node. ``NODE_ID`` is its name in workflow files, forever; ``DISPLAY_NAME`` is what people read."""

    NODE_ID: str
    DISPLAY_NAME: str
    DESCRIPTION: str
    CATEGORY = CATEGORY
    FUNCTION = "build"


class StepNode(Node):
    """A node that takes part in each training step: its outputs are streams of :meth:`step`."""

    step: Callable[..., Any]
    """``step(step, **inputs)``, what the node does in each training step; every subclass has its own inputs."""

    def build(self, unique_id: str, *_: Any, **inputs: Any) -> Any:
        return (self.stream(unique_id, inputs),)

    def stream(self, unique_id: str, inputs: dict[str, Any], **facts: Any) -> Stream:
        return Stream(self.step, inputs, str(unique_id), self.DISPLAY_NAME, **facts)


def workflow_metadata(prompt: Any, extra_pnginfo: Any) -> dict[str, str]:
    """The graph as metadata of a weights file: dropped on the canvas, the file brings the graph back."""
    texts = {"prompt": prompt, **(extra_pnginfo or {})}
    return {name: json.dumps(value) for name, value in texts.items() if value is not None}


def shown(host: Host, *pictures: Path) -> dict[str, Any]:
    """Pictures below the output folder, as ComfyUI wants to hear of them to draw them on a node; others cannot be."""
    images = []
    for picture in (picture for picture in pictures if picture.is_relative_to(host.output_folder)):
        subfolder = picture.parent.relative_to(host.output_folder).as_posix()
        images.append({"filename": picture.name, "subfolder": subfolder, "type": "output"})
    return {"images": images}
