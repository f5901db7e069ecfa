"""Routes of ours on the server of the ComfyUI process that we are a node pack of."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

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


def add_routes(routes: Iterable[tuple[str, str, Callable[..., Any]]]) -> None:
    """Register ``(method, path, handler)`` while ComfyUI loads its packs; it answers at /api too."""
    from server import PromptServer

    for method, path, handler in routes:
        PromptServer.instance.routes.route(method, path)(handler)
