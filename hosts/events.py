"""A host that reports to a graph runner through plain functions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL.Image import Image

from .host import Host, Interrupted


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
        watching: Callable[[], bool] = lambda: True,
        waits_for_room: bool = True,
    ) -> None:
        self.output_folder, self.device, self.waits_for_room = output_folder, device, waits_for_room
        self._progress, self._preview, self._finish, self._send = progress, preview, finish, send
        self._interrupted, self._watching = interrupted, watching

    def progress(self, node_id: str, value: int, maximum: int) -> None:
        self._progress(node_id, value, maximum)

    def finish(self, node_id: str) -> None:
        self._finish(node_id)

    def wants(self, kind: str) -> bool:
        return self._watching()

    def show(self, node_id: str, kind: str, update: int, picture: Image) -> None:
        self._preview(node_id, picture)

    def frames(
        self, node_id: str, update: int, sheet: Image, facts: dict[str, Any], files: dict[str, str] | None = None
    ) -> None:
        if files:
            self._send("rollout.frames", {"node": node_id, "step": update, **files})

    def metrics(self, node_id: str, rows: list[dict[str, Any]]) -> None:
        self._send("rollout.metrics", {"node": node_id, "rows": rows})

    def resumed(self, node_id: str, text: str) -> None:
        self._send("rollout.resumed", {"node": node_id, "text": text})

    def check_interrupted(self) -> None:
        if self._interrupted():
            raise Interrupted("stopped by the user")
