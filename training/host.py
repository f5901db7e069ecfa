"""Where a run reports to: nobody, our own runner, or ComfyUI. The only place that knows ComfyUI."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from PIL.Image import Image


class Interrupted(BaseException):
    """The user asked the run to stop. Not an Exception, so that nobody swallows it by accident."""


class Host:
    """Reports to nobody. Every method is called on the training thread and must not block."""

    output_folder: Path = Path("output")
    device: str = "auto"

    def model_folders(self, kind: str) -> list[Path]:
        """Where models of that kind are kept: ``checkpoints``, ``vae``, ``loras`` ..., ComfyUI's names.

        New ones are put into the first.
        """
        return [self.output_folder / kind, Path("models") / kind]

    def make_room(self) -> None:
        """Asks the host to let go of its own models, before ours come onto the device; by default it has none."""

    def progress(self, node_id: str, value: int, maximum: int) -> None:
        """``value`` of ``maximum`` steps of that node are done."""

    def wants(self, kind: str) -> bool:
        """Whether anybody would look at a picture of this kind (``noisy``, ``rollout``, ``samples`` ...)."""
        return False

    def show(self, node_id: str, kind: str, update: int, picture: Image) -> None:
        """A picture of what passes through that node."""

    def frames(
        self, node_id: str, update: int, sheet: Image, facts: dict[str, Any], files: dict[str, str] | None = None
    ) -> None:
        """The rollouts of a few items that are always the same, on one sheet (see inspection.py).

        ``files`` says where they are kept, once they are: ``subfolder`` of the output folder, ``image`` and ``data``.
        """

    def metrics(self, node_id: str, rows: list[dict[str, Any]]) -> None:
        """Finished lines of metrics, oldest first."""

    def resumed(self, node_id: str, text: str) -> None:
        """That node goes on with an earlier run; the text says from where, and what was restored."""

    def finish(self, node_id: str) -> None:
        """That node has nothing more to do in this run."""

    def check_interrupted(self) -> None:
        """Raises, as a BaseException, when the user asked to stop."""


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
    ) -> None:
        self.output_folder, self.device = output_folder, device
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

    def frames(
        self, node_id: str, update: int, sheet: Image, facts: dict[str, Any], files: dict[str, str] | None = None
    ) -> None:
        if files:
            self._send("rollout.frames", {"node": node_id, "step": update, **files})

    def metrics(self, node_id: str, rows: list[dict[str, Any]]) -> None:
        self._send("rollout.metrics", {"node": node_id, "rows": rows})

    def resumed(self, node_id: str, text: str) -> None:
        self._send("rollout.resumed", {"node": node_id, "text": text})

    def _send(self, event: str, data: dict[str, Any]) -> None:
        from server import PromptServer

        server = PromptServer.instance  # whose client_id is the browser that queued what runs now
        server.send_sync(event, data, server.client_id)

    def finish(self, node_id: str) -> None:
        from comfy_execution.progress import get_progress_state

        get_progress_state().finish_progress(node_id)

    def check_interrupted(self) -> None:
        from comfy.model_management import throw_exception_if_processing_interrupted

        throw_exception_if_processing_interrupted()


_host: ContextVar[Host | None] = ContextVar("rollout_host", default=None)


@contextmanager
def hosted_by(host: Host) -> Iterator[None]:
    """Runs in this context report to ``host``."""
    token = _host.set(host)
    try:
        yield
    finally:
        _host.reset(token)


def current_host() -> Host:
    """The host of this context; ComfyUI where we are its node pack; otherwise one that reports to nobody."""
    host = _host.get()
    if host is None:
        host = ComfyHost() if "comfy.model_management" in sys.modules else Host()
    return host


def choose_device(name: str) -> str:
    """``auto`` becomes cuda, mps or cpu, whichever is there; another name is a device that torch knows.

    Raises ValueError where torch knows no such device, or says that it is not there.
    """
    import torch

    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return next(device for device, there in available.items() if there)
    try:
        kind = torch.device(name).type
    except RuntimeError as error:
        raise ValueError(f"device {name!r} is none that torch knows: choose auto, cpu, cuda or mps") from error
    if not available.get(kind, True):
        there = ", ".join(device for device, yes in available.items() if yes)
        raise ValueError(f"device {name!r} is not available here: choose auto or one of {there}")
    return name
