"""Our workflow files as the templates that the frontend offers."""

import io
import json
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

FIRST = "quickstart"
NEEDS_COMFYUI = "comfyui_"
"""How the names of workflows begin that have nodes of ComfyUI itself, which our own runner does not know."""
SIZE = (640, 400)


def names(workflows: Path) -> list[str]:
    """The templates' names, the quickstart ones first."""
    found = [path.stem for path in workflows.glob("*.json")] if workflows.is_dir() else []
    found = [name for name in found if not name.startswith(NEEDS_COMFYUI)]
    return sorted(found, key=lambda name: (not name.startswith(FIRST), name))


def index(workflows: Path) -> list[dict[str, Any]]:
    """What /templates/index.json holds: one category with all of them, shown first of all."""
    templates = [_entry(workflows / f"{name}.json") for name in names(workflows)]
    category = {"moduleName": "default", "title": "Rollout training", "type": "image", "isEssential": True}
    return [{**category, "templates": templates}] if templates else []


def _entry(path: Path) -> dict[str, Any]:
    note = _first_note(path)
    return {
        "name": path.stem,
        "title": title(path.stem),
        "description": note or title(path.stem),
        "mediaType": "image",
        "mediaSubtype": "jpg",
        "tags": ["Training"],
        "openSource": True,
        "date": "",
    }


def title(name: str) -> str:
    text = name.replace("_", " ").replace("-", " ")
    return text[:1].upper() + text[1:]


def _first_note(path: Path) -> str:
    """The first plain sentence of the first note in the workflow: its author's description."""
    try:
        nodes = json.loads(path.read_text(encoding="utf-8")).get("nodes", [])
        notes = [node["widgets_values"][0] for node in nodes if node.get("type") in ("MarkdownNote", "Note")]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return ""
    lines = [line.strip() for note in notes[:1] for line in str(note).splitlines()]
    plain = [line for line in lines if line and line[0].isalnum()]
    return plain[0].replace("**", "").replace("`", "")[:200] if plain else ""


def placeholder(name: str) -> bytes:
    """A thumbnail (JPEG) for a template that has none: its title on the frontend's dark grey."""
    picture = Image.new("RGB", SIZE, "#26262b")
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, SIZE[1] - 12, SIZE[0], SIZE[1]), "#3f789e")
    draw.text((SIZE[0] / 2, SIZE[1] / 2), title(name), "#e8e8ea", ImageFont.load_default(40), anchor="mm")
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
