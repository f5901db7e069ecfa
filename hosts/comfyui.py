"""The ComfyUI process that we are a node pack of. The only file that knows ComfyUI."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL.Image import Image

from .host import Host


class ComfyHost(Host):
    """Reports to the ComfyUI process that we are a node pack of."""

    def __init__(self) -> None:
        import folder_paths
        from comfy.model_management import get_torch_device
        from comfy.utils import ProgressBar

        self.device = str(get_torch_device())
        self.output_folder = Path(folder_paths.get_output_directory())
        self._bars: dict[str, Any] = {}
        self._new_bar = ProgressBar

    def model_folders(self, kind: str) -> list[Path]:
        import folder_paths

        known = folder_paths.folder_names_and_paths
        return [Path(folder) for folder in folder_paths.get_folder_paths(kind)] if kind in known else []

    def make_room(self) -> None:
        from comfy.model_management import soft_empty_cache, unload_all_models

        unload_all_models()  # they are loaded again when a workflow asks for them
        soft_empty_cache()

    def _update(self, node_id: str, value: int | None, maximum: int | None, picture: Image | None) -> None:
        if node_id not in self._bars:
            self._bars[node_id] = self._new_bar(1, node_id=node_id)
        bar = self._bars[node_id]
        preview = ("JPEG", picture, None) if picture else None
        bar.update_absolute(bar.current if value is None else value, maximum, preview)

    def progress(self, node_id: str, value: int, maximum: int) -> None:
        self._update(node_id, value, maximum, None)

    def wants(self, kind: str) -> bool:
        return True

    def show(self, node_id: str, kind: str, update: int, picture: Image) -> None:
        self._update(node_id, None, None, picture.convert("RGB"))

    def send(self, event: str, data: dict[str, Any]) -> None:
        from server import PromptServer

        server = PromptServer.instance  # whose client_id is the browser that queued what runs now
        server.send_sync(event, data, server.client_id)

    def nothing(self, why: str) -> Any:
        from comfy_execution.graph_utils import ExecutionBlocker

        return ExecutionBlocker(why)

    def finish(self, node_id: str) -> None:
        from comfy_execution.progress import get_progress_state

        get_progress_state().finish_progress(node_id)

    def check_interrupted(self) -> None:
        from comfy.model_management import throw_exception_if_processing_interrupted

        throw_exception_if_processing_interrupted()
