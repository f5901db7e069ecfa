"""A host that reports to a graph runner through plain functions."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL.Image import Image

from .host import Host, Interrupted
from .model_paths import ModelPaths
from .notify import Ended
from .processes import ONE, Processes


class EventHost(Host):
    """Reports to a graph runner through plain functions, so that neither side knows the other."""

    def __init__(
        self,
        output_folder: Path,
        device: str = "auto",
        *,
        progress: Callable[[str, int, int], None],
        preview: Callable[[str, Image], None],
        finish: Callable[[str], None],
        send: Callable[[str, dict[str, Any]], None],
        interrupted: Callable[[], bool],
        seconds_left: Callable[[], float] = lambda: math.inf,
        watching: Callable[[], bool] = lambda: True,
        waits_for_room: bool = True,
        models: ModelPaths | None = None,
        processes: Processes = ONE,
    ) -> None:
        self.output_folder, self.device, self.waits_for_room = output_folder, device, waits_for_room
        self.processes = processes
        self.models = models or self.models
        self.runs: list[Ended] = []
        """Those that have ended."""
        self._progress, self._preview, self._finish, self._send = progress, preview, finish, send
        self._interrupted, self._watching, self._seconds_left = interrupted, watching, seconds_left

    def progress(self, node_id: str, value: int, maximum: int) -> None:
        self._progress(node_id, value, maximum)

    def finish(self, node_id: str) -> None:
        self._finish(node_id)

    def wants(self, kind: str) -> bool:
        return self._watching()

    def show(self, node_id: str, kind: str, update: int, picture: Image) -> None:
        self._preview(node_id, picture)

    def send(self, event: str, data: dict[str, Any]) -> None:
        self._send(event, data)

    def seconds_left(self) -> float:
        return self._seconds_left()

    def ended(self, folder: Path, status: str, message: str = "") -> None:
        self.runs.append(Ended(folder, status, message))

    def check_interrupted(self) -> None:
        if self._interrupted():
            raise Interrupted("stopped by the user")
