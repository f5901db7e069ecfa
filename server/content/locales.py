"""Translations of nodes, settings and messages, laid out as ComfyUI wants them of a node pack."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

PARTS = ("nodeDefs", "commands", "settings")
"""Files beside ``main.json`` whose content has a name of its own."""


def translations(folder: Path) -> dict[str, Any]:
    """By language, what ``<folder>/<language>/*.json`` say; a file that is missing says nothing."""
    languages = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    return {path.name: _language(path) for path in languages}


def spoken(chosen: object, accepted: str, known: Iterable[str]) -> str:
    """The language to speak: the chosen one, else the first known of those that a browser accepts, else English.

    ``accepted`` is its header Accept-Language. The same rule as ``web/lib/language/language.js`` has.
    """
    wanted = [tag.split(";")[0].split("-")[0].strip().lower() for tag in accepted.split(",")]
    return next((tag for tag in (chosen, *wanted) if isinstance(tag, str) and tag in {"en", *known}), "en")


def template_lines(folder: Path, language: str) -> dict[str, str]:
    """What the lines of our templates' notes are in ``language``, by the English line."""
    lines: dict[str, str] = _read(folder / language / "main.json").get("rolloutTemplates", {})
    return lines


def _language(folder: Path) -> dict[str, Any]:
    parts = {name: found for name in PARTS if (found := _read(folder / f"{name}.json"))}
    return _read(folder / "main.json") | parts


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
