"""A host that also keeps what a run folder wants, while it passes everything on. Reporting never stops training."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from PIL.Image import Image

from ..files.full import chain_of
from ..files.whole import Unwritable
from ..hosts.host import Host, Silent
from .metrics_file import read_metrics
from .run_folder import RunFolder

log = logging.getLogger(__name__)

MOST_RETOLD = 2000
"""Rows of metrics that a host is told of what was before a resume; of more every n-th."""


class Recorder(Silent):
    """Asks as :class:`Silent` does, but tells ``host`` too, and writes pictures and metrics into ``folder``.

    What cannot be written, or told because nobody reads it any more, is said in the log, once for each reason.
    """

    def __init__(self, host: Host, folder: RunFolder) -> None:
        super().__init__(host)
        self.folder = folder
        self.said: set[str] = set()

    def _try(self, report: Callable[[], Any]) -> Any:
        """Report; a full disk or a broken pipe is no reason to stop training."""
        try:
            return report()
        except (OSError, Unwritable) as error:
            what = reason_of(error)
            if what not in self.said:
                self.said.add(what)
                log.warning("training goes on, but not all of it can be reported: %s", what)
            return None

    def progress(self, node_id: str, value: int, maximum: int) -> None:
        self._try(lambda: self.host.progress(node_id, value, maximum))

    def wants(self, kind: str) -> bool:
        return self.folder.wants(kind) or self.host.wants(kind)

    def show(self, node_id: str, kind: str, update: int, picture: Image) -> None:
        if self.folder.wants(kind):
            self._try(lambda: self.folder.add_picture(kind, node_id, update, picture))
        if self.host.wants(kind):
            self._try(lambda: self.host.show(node_id, kind, update, picture))

    def frames(
        self, node_id: str, update: int, sheet: Image, facts: dict[str, Any], files: dict[str, str] | None = None
    ) -> None:
        kept = None
        written = self._try(lambda: self.folder.add_frames(node_id, update, sheet, facts))
        # A run that was resumed by its full path may be elsewhere.
        if written and written[0].is_relative_to(self.output_folder):
            image, data = written
            subfolder = image.parent.relative_to(self.output_folder).as_posix()
            kept = {"subfolder": subfolder, "image": image.name, "data": data.name}
        self._try(lambda: self.host.frames(node_id, update, sheet, facts, kept))

    def metrics(self, node_id: str, rows: list[dict[str, Any]]) -> None:
        self._try(lambda: self.folder.add_metrics(rows))
        self._try(lambda: self.host.metrics(node_id, rows))

    def resumed(self, node_id: str, text: str) -> None:
        """Tell the host also what was before: its curve begins where the run began."""
        self._try(lambda: self.host.resumed(node_id, text))
        rows = read_metrics(self.folder.folder)
        if rows:
            every = -(-len(rows) // MOST_RETOLD)
            told = [row for place, row in enumerate(rows) if place % every == 0 or "validation_loss" in row]
            self._try(lambda: self.host.metrics(node_id, told))

    def finish(self, node_id: str) -> None:
        self._try(lambda: self.host.finish(node_id))

    def seconds_left(self) -> float:
        return self.host.seconds_left()


def reason_of(error: BaseException) -> str:
    """Why something could not be written, without the file's name: the next picture's has the same reason."""
    reasons = (each.strerror for each in chain_of(error) if isinstance(each, OSError) and each.strerror)
    return next(reasons, "") or str(error) or type(error).__name__
