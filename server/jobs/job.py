"""One prompt on its way through the queue, and what is left of it."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ...graph import Result

SECRETS = ("auth_token_comfy_org", "api_key_comfy_org")
"""What the frontend may send for services that we do not use; never kept."""


def now() -> int:
    """Milliseconds since 1970, as ComfyUI stamps everything."""
    return int(time.time() * 1000)


@dataclass(eq=False)
class Job:
    """A validated prompt with its place in the queue."""

    number: float
    """Its place: lower is earlier."""
    id: str
    """A canonical lower-case UUID."""
    prompt: dict[str, Any]
    outputs: list[str]
    """Ids of the output nodes to run."""
    extra_data: dict[str, Any] = field(default_factory=dict)
    size: int = 0
    """Bytes of the request that it came from: a measure of what it costs to remember."""
    observer: Callable[[str, Any], None] | None = None
    """Called on the training thread with every event of the run."""
    started: int | None = None
    ended: int | None = None
    result: Result | None = None
    messages: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    """The events that ComfyUI keeps in its history: start, cached, and how it ended."""
    interrupt: threading.Event = field(default_factory=threading.Event)
    done: threading.Event = field(default_factory=threading.Event)
    """Set when it is in the history and its clients have been told."""

    def __post_init__(self) -> None:
        self.extra_data = {name: value for name, value in self.extra_data.items() if name not in SECRETS}
        self.extra_data.setdefault("create_time", now())

    @property
    def status(self) -> str:
        """pending, in_progress, completed, failed or cancelled."""
        if self.result is not None:
            return {"success": "completed", "error": "failed", "interrupted": "cancelled"}[self.result.status]
        return "pending" if self.started is None else "in_progress"

    @property
    def client_id(self) -> str | None:
        """The client that queued it and hears of it; None where nobody waits for it."""
        found = self.extra_data.get("client_id")
        return found if isinstance(found, str) else None

    @property
    def workflow_id(self) -> str | None:
        """The id of the workflow in the editor, by which the frontend finds the tab that an error belongs to."""
        info = self.extra_data.get("extra_pnginfo")
        workflow = info.get("workflow") if isinstance(info, dict) else None
        found = workflow.get("id") if isinstance(workflow, dict) else None
        return found if isinstance(found, str) else None

    def start(self) -> None:
        self.started = now()

    def end(self, result: Result) -> None:
        """Keep how it ended; what was raised is let go, as its frames hold on to tensors."""
        result.exception = None
        self.ended, self.result = now(), result
