"""Our graphs folded into one node, as the blueprints that the frontend's node library offers."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

COMFYUI = "comfyui"
"""What a blueprint says in ``extra.rollout.needs`` whose inputs only ComfyUI's own nodes give."""


def blueprints(folder: Path) -> dict[str, Path]:
    """The files that work here, by the id that the frontend asks for them with."""
    found = sorted(folder.glob("*.json")) if folder.is_dir() else []
    return {hashlib.sha256(path.name.encode()).hexdigest(): path for path in found if needs(path) != COMFYUI}


def needs(path: Path) -> str | None:
    """What it cannot do without; a broken file is offered to nobody."""
    try:
        extra = json.loads(path.read_text(encoding="utf-8")).get("extra") or {}
        return (extra.get("rollout") or {}).get("needs")
    except (OSError, ValueError, AttributeError):
        return COMFYUI


def about(path: Path, pack: str, lines: Mapping[str, str]) -> dict[str, Any]:
    """What ComfyUI says of a blueprint of a node pack; ``lines`` are a language's words, by the English ones."""
    name = lines.get(path.stem, path.stem)
    return {"source": "custom_node", "name": name, "info": {"node_pack": f"custom_nodes.{pack}"}}


def text_of(path: Path, lines: Mapping[str, str]) -> str:
    """The file, with its name, its description and the titles in it in a language; it is found by its English name too.

    Raises ValueError, LookupError and TypeError for a file that holds no blueprint, where there are ``lines``.
    """
    text = path.read_text(encoding="utf-8")
    if path.stem not in lines:
        return text
    workflow = json.loads(text)
    (whole,), extra = workflow["definitions"]["subgraphs"], workflow["extra"]
    extra["BlueprintSearchAliases"].append(path.stem)
    titled = [(node, "title") for node in (*workflow["nodes"], *whole["nodes"]) if node.get("title")]
    for part, key in (*titled, (whole, "name"), (whole, "description"), (extra, "BlueprintDescription")):
        part[key] = lines.get(part[key], part[key])
    return json.dumps(workflow)
