"""Translations of nodes, settings and messages, laid out as ComfyUI wants them of a node pack."""

import json
from pathlib import Path
from typing import Any

PARTS = ("nodeDefs", "commands", "settings")
"""Files beside ``main.json`` whose content has a name of its own."""


def translations(folder: Path) -> dict[str, Any]:
    """By language, what ``<folder>/<language>/*.json`` say; a file that is missing says nothing."""
    languages = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    return {path.name: _language(path) for path in languages}


def _language(folder: Path) -> dict[str, Any]:
    parts = {name: found for name in PARTS if (found := _read(folder / f"{name}.json"))}
    return _read(folder / "main.json") | parts


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
