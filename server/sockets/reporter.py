"""From the training thread to the clients, without ever waiting for them."""

import asyncio
import threading
from collections.abc import Callable, Hashable
from typing import Any

from .messages import Message, Preview

INTERVAL = 0.1
"""Seconds between two deliveries of progress, previews and metrics: ten a second, however fast the steps are."""

METRICS = "rollout.metrics"
"""The message {"node", "rows"} of a curve that grows; rows of one delivery are sent together."""

MOST_WAITING = 10_000  # messages; only reached when a node floods its listeners
PICTURE_IDS = ("node_id", "prompt_id", "display_node_id", "parent_node_id", "real_node_id")


class Reporter:
    """The listener of one job.

    The training thread files its events here, which costs microseconds: of progress and pictures only the newest are
    kept, rows of metrics are joined. The event loop fetches them ten times a second, or at once when something
    happened that must be told in order (a node started, an image was made, an error).
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, deliver: Callable[[Message], None], interval: float = INTERVAL
    ) -> None:
        self._loop, self._deliver, self._interval = loop, deliver, interval
        self._lock = threading.Lock()
        self._waiting: dict[Hashable, Message] = {}
        self._awake = self._urgent = False
        self._order = 0  # of messages that must arrive; what may be replaced never moves across one of them
        self._nodes: dict[str, dict[str, Any]] = {}
        self._states: list[tuple[str, str]] = []
        self._has_progress = False
        self._early: dict[Hashable, Preview] = {}
        """Pictures from before the job's first progress: a client that learns from it which job runs is shown none."""
        self._last = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def __call__(self, kind: str, data: Any) -> None:
        with self._lock:
            is_urgent = self._file(kind, data)
            must_wake = not self._awake or (is_urgent and not self._urgent)
            self._awake, self._urgent = True, self._urgent or is_urgent
        if must_wake:
            try:
                self._loop.call_soon_threadsafe(self._wake)
            except RuntimeError:  # the server is gone; the run goes on
                self._waiting.clear()

    def _file(self, kind: str, data: Any) -> bool:
        """Keep a message for the next delivery; True if that is to be at once."""
        if kind == "progress_state":
            states = [(node_id, node["state"]) for node_id, node in data["nodes"].items()]
            is_urgent, self._states, self._nodes = states != self._states, states, data["nodes"]
            self._keep(Message(kind, data, (kind,)))
            return is_urgent
        if kind == "progress":
            self._keep(Message(kind, data, (kind,)))
            self._has_progress = True
            for picture in self._early.values():
                self._keep(picture)
            self._early.clear()
            return False
        if kind == "preview":
            known = self._nodes.get(data["node_id"], {})
            ids = {name: known.get(name, data["node_id"]) for name in PICTURE_IDS} | {"prompt_id": data["prompt_id"]}
            picture = Preview(data["image"], ids)
            if self._has_progress:
                self._keep(picture)
            else:
                self._early[picture.key] = picture
            return False
        if kind == METRICS:
            key = (self._order, METRICS, data["node"])
            rows = [*self._waiting[key].data["rows"], *data["rows"]] if key in self._waiting else data["rows"]
            self._waiting[key] = Message(kind, {**data, "rows": rows})
            return False
        self._order += 1
        self._waiting[self._order] = Message(kind, data)
        while len(self._waiting) > MOST_WAITING:
            del self._waiting[next(iter(self._waiting))]
        return True

    def _keep(self, message: Message) -> None:
        """In the place of an older one of its key: a node's state must stay before its pictures."""
        self._waiting[(self._order, message.key)] = message

    def _wake(self) -> None:
        wait = self._last + self._interval - self._loop.time()
        if self._urgent or wait <= 0:
            self._flush()
        elif self._timer is None:
            self._timer = self._loop.call_later(wait, self._flush)

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        with self._lock:
            waiting, self._waiting = list(self._waiting.values()), {}
            self._awake = self._urgent = False
        self._last = self._loop.time()
        for message in waiting:
            self._deliver(message)
