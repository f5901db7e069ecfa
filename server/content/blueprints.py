"""Our graphs folded into one node, as the blueprints that the frontend's node library offers."""

import hashlib
import json
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


def about(path: Path, pack: str) -> dict[str, Any]:
    """What ComfyUI says of a blueprint of a node pack."""
    return {"source": "custom_node", "name": path.stem, "info": {"node_pack": f"custom_nodes.{pack}"}}
