"""What a run reports, as ComfyUI's messages: names, fields and order are those of its WebSocket."""

import threading
import time
from collections.abc import Callable
from typing import Any

from .dynamic_prompt import DynamicPrompt

Listener = Callable[[str, Any], None]


class Events:
    """The reports of one run. Threads may share it: the listener is called by one of them at a time."""

    def __init__(self, prompt_id: str | None, dynprompt: DynamicPrompt, listener: Listener):
        self.prompt_id = prompt_id
        self.dynprompt = dynprompt
        self._listener = listener
        self._lock = threading.RLock()
        self._progress: dict[str, dict[str, Any]] = {}

    def send(self, kind: str, data: Any) -> None:
        with self._lock:
            self._listener(kind, data)

    def stamped(self, kind: str, **data: Any) -> dict[str, Any]:
        """Send a message about the whole run; it carries a time in milliseconds."""
        message = {**data, "timestamp": int(time.time() * 1000)}
        self.send(kind, message)
        return message

    def executing(self, node_id: str) -> None:
        display = self.dynprompt.get_display_node_id(node_id)
        self.send("executing", {"node": node_id, "display_node": display, "prompt_id": self.prompt_id})

    def executed(self, node_id: str, ui: dict[str, Any]) -> None:
        display = self.dynprompt.get_display_node_id(node_id)
        data = {"node": node_id, "display_node": display, "output": ui, "prompt_id": self.prompt_id}
        self.send("executed", data)

    def start(self, node_id: str) -> None:
        self._set(node_id, "running", 0.0, 1.0)

    def progress(self, node_id: str, value: float, maximum: float, image: Any = None) -> None:
        with self._lock:
            self._set(node_id, "running", value, maximum)
            if image is not None:
                self.preview(node_id, image)
            data = {"value": value, "max": maximum, "prompt_id": self.prompt_id, "node": node_id}
            self.send("progress", data)

    def preview(self, node_id: str, image: Any) -> None:
        with self._lock:
            if node_id not in self._progress:
                self.start(node_id)  # the frontend drops a node's preview when it first hears that the node runs
            self.send("preview", {"node_id": node_id, "prompt_id": self.prompt_id, "image": image})

    def finish(self, node_id: str) -> None:
        with self._lock:
            maximum = self._progress.get(node_id, {}).get("max", 1)
            self._set(node_id, "finished", maximum, maximum)

    def _set(self, node_id: str, state: str, value: float, maximum: float) -> None:
        """Change one node's state and send all of them, as the frontend wants it."""
        with self._lock:
            self._progress[node_id] = {
                "value": value,
                "max": maximum,
                "state": state,
                "node_id": node_id,
                "prompt_id": self.prompt_id,
                "display_node_id": self.dynprompt.get_display_node_id(node_id),
                "parent_node_id": self.dynprompt.get_parent_node_id(node_id),
                "real_node_id": self.dynprompt.get_real_node_id(node_id),
            }
            # Entries are replaced and never changed, so messages may share them.
            self.send("progress_state", {"prompt_id": self.prompt_id, "nodes": dict(self._progress)})
