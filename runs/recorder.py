"""A host that also keeps what a run folder wants, while it passes everything on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL.Image import Image

from ..hosts.host import Host
from .run_folder import RunFolder, read_metrics

MOST_RETOLD = 2000
"""Rows of metrics that a host is told of what was before a resume; of more every n-th."""


class Recorder(Host):
    """Reports to ``host`` and writes pictures and metrics into ``folder``."""

    def __init__(self, host: Host, folder: RunFolder) -> None:
        self.host, self.folder = host, folder
        self.output_folder, self.device = host.output_folder, host.device

    def model_folders(self, kind: str) -> list[Path]:
        return self.host.model_folders(kind)

    def make_room(self) -> None:
        self.host.make_room()

    def progress(self, node_id: str, value: int, maximum: int) -> None:
        self.host.progress(node_id, value, maximum)

    def wants(self, kind: str) -> bool:
        return self.folder.wants(kind) or self.host.wants(kind)

    def show(self, node_id: str, kind: str, update: int, picture: Image) -> None:
        if self.folder.wants(kind):
            self.folder.add_picture(kind, node_id, update, picture)
        if self.host.wants(kind):
            self.host.show(node_id, kind, update, picture)

    def frames(
        self, node_id: str, update: int, sheet: Image, facts: dict[str, Any], files: dict[str, str] | None = None
    ) -> None:
        image, data = self.folder.add_frames(node_id, update, sheet, facts)
        kept = None
        if image.is_relative_to(self.output_folder):  # a run that was resumed by its full path may be elsewhere
            subfolder = image.parent.relative_to(self.output_folder).as_posix()
            kept = {"subfolder": subfolder, "image": image.name, "data": data.name}
        self.host.frames(node_id, update, sheet, facts, kept)

    def metrics(self, node_id: str, rows: list[dict[str, Any]]) -> None:
        self.folder.add_metrics(rows)
        self.host.metrics(node_id, rows)

    def resumed(self, node_id: str, text: str) -> None:
        """Tell the host also what was before: its curve begins where the run began."""
        self.host.resumed(node_id, text)
        rows = read_metrics(self.folder.folder)
        if rows:
            self.host.metrics(node_id, rows[:: -(-len(rows) // MOST_RETOLD)])

    def finish(self, node_id: str) -> None:
        self.host.finish(node_id)

    def check_interrupted(self) -> None:
        self.host.check_interrupted()
