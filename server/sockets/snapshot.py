"""What somebody who comes late has to be told about the job that runs."""

from collections.abc import Iterator

from .messages import Message, Preview
from .reporter import METRICS

OURS = "rollout."
"""Messages of our own nodes begin so; of each kind and node the newest is told to late comers."""

MOST_ROWS = 2000
"""Rows of metrics kept a node; beyond it every second one of the older half is dropped, again and again."""


class Snapshot:
    """Follows the messages of the running job and remembers the newest of each sort."""

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self.owner: str | None = None
        """The client that queued the running job, if one did."""
        self._kept: dict[str, Message] = {}
        self._previews: dict[str, Preview] = {}
        self._rows: dict[str, list[object]] = {}
        self._ours: dict[tuple[str, str], Message] = {}

    def note(self, message: Message, owner: str | None = None) -> None:
        """A message of the job that ``owner`` queued."""
        kind, data = message.kind, message.data
        if kind == "execution_start" or (kind == "executing" and data["node"] is None):
            self._clear()
        self.owner = owner
        if isinstance(message, Preview):
            self._previews[data["node_id"]] = message
        elif kind == METRICS:
            self._add_rows(data["node"], data["rows"])
        elif kind.startswith(OURS) and isinstance(data, dict) and isinstance(data.get("node"), str):
            self._ours[kind, data["node"]] = message
        elif kind in ("execution_start", "execution_cached", "progress_state", "executing"):
            self._kept[kind] = message
        if kind == "executing" and data["node"] is None:
            self._clear()

    def _add_rows(self, node: str, rows: list[object]) -> None:
        known = self._rows.setdefault(node, [])
        known.extend(rows)
        while len(known) > MOST_ROWS:
            middle = len(known) // 2
            known[:middle] = known[:middle:2]

    def story(self) -> Iterator[Message]:
        """The state of the job and the curves so far, in the order in which a client that was here heard of them."""
        for kind in ("execution_start", "execution_cached", "progress_state", "executing"):
            if kind in self._kept:
                yield Message(kind, self._kept[kind].data)
        for node, rows in self._rows.items():
            yield Message(METRICS, {"node": node, "rows": list(rows)})
        yield from self._ours.values()

    def previews(self) -> list[Preview]:
        return list(self._previews.values())
