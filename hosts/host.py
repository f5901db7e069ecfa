"""What every place to report to has; this one reports to nobody."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from PIL.Image import Image

from .interrupted import Interrupted
from .model_paths import ModelPaths
from .processes import ONE, Processes

__all__ = ["Host", "Interrupted", "Silent"]


class Host:
    """Reports to nobody. Every method is called on the training thread and must not block."""

    output_folder: Path = Path("output")
    models: ModelPaths = ModelPaths((Path("models"),))
    device: str = "auto"
    waits_for_room: bool = True
    """Whether a run whose disk is full waits until there is room; else it fails, with what it had kept."""
    processes: Processes = ONE
    """Who trains together here."""

    def model_folders(self, kind: str) -> list[Path]:
        """Where models of that kind are kept: ``checkpoints``, ``vae``, ``loras`` ..., ComfyUI's names.

        New ones are put into the first.
        """
        return [self.output_folder / kind, *self.models.of(kind)]

    def make_room(self) -> None:
        """Asks the host to let go of its own models, before ours come onto the device; by default it has none."""

    def progress(self, node_id: str, value: int, maximum: int) -> None:
        """``value`` of ``maximum`` steps of that node are done."""

    def wants(self, kind: str) -> bool:
        """Whether anybody would look at a picture of this kind (``noisy``, ``rollout``, ``samples`` ...)."""
        return False

    def show(self, node_id: str, kind: str, update: int, picture: Image) -> None:
        """A picture of what passes through that node."""

    def frames(
        self, node_id: str, update: int, sheet: Image, facts: dict[str, Any], files: dict[str, str] | None = None
    ) -> None:
        """The rollouts of a few items that are always the same, on one sheet (see inspection.py).

        ``files`` says where they are kept, once they are: ``subfolder`` of the output folder, ``image`` and ``data``.
        """
        if files:
            self.send("rollout.frames", {"node": node_id, "step": update, **files})

    def metrics(self, node_id: str, rows: list[dict[str, Any]]) -> None:
        """Finished lines of metrics, oldest first."""
        self.send("rollout.metrics", {"node": node_id, "rows": rows})

    def resumed(self, node_id: str, text: str) -> None:
        """That node goes on with an earlier run; the text says from where, and what was restored."""
        self.send("rollout.resumed", {"node": node_id, "text": text})

    def send(self, event: str, data: dict[str, Any]) -> None:
        """A message of ours for browsers; by default nobody hears it."""

    def nothing(self, why: str) -> Any:
        """What a node gives out where it has nothing to give; who reads it is told why, if the host can do that."""
        return None

    def finish(self, node_id: str) -> None:
        """That node has nothing more to do in this run."""

    def seconds_left(self) -> float:
        """Until the program is ended from outside, as far as it was told so (a cluster's notice)."""
        return math.inf

    def ended(self, folder: Path, status: str, message: str = "") -> None:
        """The run of that folder is over: ``finished``, ``interrupted`` or ``failed``."""

    def check_interrupted(self) -> None:
        """Raises, as a BaseException, when the user asked to stop."""


class Silent(Host):
    """Asks another host and tells it nothing: for a process beside the first one, which reports what both do."""

    def __init__(self, host: Host) -> None:
        self.host, self.output_folder, self.device = host, host.output_folder, host.device
        self.waits_for_room, self.processes = host.waits_for_room, host.processes

    def model_folders(self, kind: str) -> list[Path]:
        return self.host.model_folders(kind)

    def make_room(self) -> None:
        self.host.make_room()

    def check_interrupted(self) -> None:
        self.host.check_interrupted()
