"""Bring a SimpleTuner configuration over: its keys, as nodes and their inputs."""

from .graph import ROOM, Imported, import_config
from .settings import Files, read_files
from .table import key_table

__all__ = ["ROOM", "Files", "Imported", "import_config", "key_table", "read_files"]
