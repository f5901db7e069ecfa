"""The folders that the server reads and writes; nothing outside them is ever touched."""

import contextlib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Folders:
    """Where things are. Folders that are written to are made when they are first needed."""

    frontend: Path
    """The static files of ComfyUI's frontend."""
    web: Path
    """Our extension for it, and the nodes' help pages."""
    workflows: Path
    """Workflow files that are offered as templates."""
    output: Path
    """What runs leave behind."""
    input: Path
    """Uploaded images."""
    temp: Path
    """Images that are of no use after this session."""
    user: Path
    """Settings, and workflows saved from the editor."""

    @property
    def runs(self) -> Path:
        """One folder a training run."""
        return self.output / "rollout"

    @property
    def locales(self) -> Path:
        """Translations; beside the extension, where ComfyUI looks for those of a node pack."""
        return self.web.parent / "locales"

    @property
    def blueprints(self) -> Path:
        """Graphs folded into one node; beside the workflows, where ComfyUI looks for those of a node pack."""
        return self.workflows.parent / "subgraphs"

    @property
    def datasets(self) -> Path:
        """One folder a data set: pictures that were brought in, with their captions."""
        return self.input / "datasets"

    @property
    def thumbnails(self) -> Path:
        """Small copies of pictures; may be removed at any time."""
        return self.user / ".thumbnails"

    def make(self) -> None:
        """Make the folders that people put things into, where that is possible, so that they see where these belong."""
        for folder in (self.output, self.datasets):
            with contextlib.suppress(OSError):
                folder.mkdir(parents=True, exist_ok=True)

    def of_type(self, name: str) -> Path:
        """The folder that ComfyUI's API calls ``input``, ``output`` or ``temp``; raises KeyError for other names."""
        return {"input": self.input, "output": self.output, "temp": self.temp}[name]
