"""Routes of ours on the server of the ComfyUI process that we are a node pack of."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

_STARTED = time.time()


def output_folder() -> Path:
    """Where ComfyUI keeps what its nodes make."""
    import folder_paths

    return Path(folder_paths.get_output_directory())


def running_since() -> float | None:
    """When what runs now began at the earliest, in seconds; None while ComfyUI's queue runs nothing."""
    from server import PromptServer

    running, _ = PromptServer.instance.prompt_queue.get_current_queue_volatile()
    return _STARTED if running else None


def add_routes(paths: Iterable[str], handler: Callable[..., Any]) -> None:
    """Register a handler for all methods while ComfyUI loads its packs; it answers at /api too."""
    from server import PromptServer

    for path in paths:
        PromptServer.instance.routes.route("*", path)(handler)


def paths_of_an_odd_folder(name: str) -> dict[str, str]:
    """Where ComfyUI's own routes to a pack's files fail, because the pack's folder has a space or the like in its name.

    By what is asked for: ``extensions`` or ``workflow_templates``. They match no other pack. Nothing for plain names.
    """
    if quote(name) == name:
        return {}
    only = re.escape(name)
    return {what: f"/{what}/{{pack:{only}}}/{{path:.+}}" for what in ("extensions", "workflow_templates")}
