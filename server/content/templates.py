"""Our workflow files as the templates that the frontend offers."""

import io
import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any

from PIL import Image, ImageDraw, ImageFont

SIZE = (640, 400)
NEEDS_COMFYUI = "comfyui_"
"""How the names of workflows begin that have nodes of ComfyUI itself, which our own runner does not know."""
COSTS = "**What it costs.**"
CARD = re.compile(r"card with (\d+ GB)")
TRAINER = "RolloutOptimizerStep"
BOLD_START = re.compile(r"\*\*.+?\*\*")
ENGLISH: Mapping[str, str] = {}
MOST_LETTERS = 300
"""Of a description: what the template browser has room for."""
LAST = 1_000
"""The place of a template that names none."""


@dataclass(frozen=True)
class Told:
    """What a workflow's first note says of it, and its place among the templates (``extra.rollout.order``)."""

    title: str = ""
    description: str = ""
    order: float = LAST
    memory: str = ""
    """Of the card that it was made for."""
    steps: int = 0
    """How long it trains."""
    minutes: int = 0
    """That it takes on two processor cores, where that was measured (``extra.rollout.minutes``)."""


def names(workflows: Path) -> list[str]:
    """The templates' names, in the order that they ask for."""
    found = list(workflows.glob("*.json")) if workflows.is_dir() else []
    found = [path for path in found if not path.name.startswith(NEEDS_COMFYUI)]
    return [path.stem for path in sorted(found, key=lambda path: (told(path).order, path.stem))]


def index(workflows: Path, lines: Mapping[str, str] = ENGLISH) -> list[dict[str, Any]]:
    """What /templates/index.json holds: one category with all of them, shown first of all.

    ``lines`` are those of another language, by the English ones.
    """
    templates = [_entry(workflows / f"{name}.json", lines) for name in names(workflows)]
    heading = lines.get("Rollout training", "Rollout training")
    category = {"moduleName": "default", "title": heading, "type": "image", "isEssential": True}
    return [{**category, "templates": templates}] if templates else []


def _entry(path: Path, lines: Mapping[str, str]) -> dict[str, Any]:
    found = told(path, lines)
    return {
        "name": path.stem,
        "title": found.title or title(path.stem),
        "description": found.description or found.title or title(path.stem),
        "mediaType": "image",
        "mediaSubtype": "jpg",
        "tags": tags(found, lines),
        "openSource": True,
        "date": "",
    }


def tags(found: Told, lines: Mapping[str, str] = ENGLISH) -> list[str]:
    """What stands below a template's title, and by what they can be filtered: what it needs, and how long it takes.

    The browser of templates shows the first two.
    """
    unit, count = ("min", found.minutes) if found.minutes else ("steps", found.steps)
    needs = (found.memory, f"{count:,} {lines.get(unit, unit)}" if count else "")
    return [*filter(None, needs), lines.get("Training", "Training")]


def opened_anew(path: Path) -> str:
    """A template as a workflow of its own: with the id in the file, every tab that opens it would show the others'
    runs. Raises FileNotFoundError.
    """
    text = path.read_text(encoding="utf-8")
    try:
        workflow = json.loads(text)
    except ValueError:
        return text
    return json.dumps({**workflow, "id": str(uuid.uuid4())}) if isinstance(workflow, dict) else text


def title(name: str) -> str:
    text = name.replace("_", " ").replace("-", " ")
    return text[:1].upper() + text[1:]


def told(path: Path, lines: Mapping[str, str] = ENGLISH) -> Told:
    """From the note's heading, its first plain sentence, and the line on what it costs; nothing of a broken file."""
    try:
        workflow = json.loads(path.read_text(encoding="utf-8"))
        asked = (workflow.get("extra") or {}).get("rollout") or {}
        order, minutes = asked.get("order", LAST), asked.get("minutes", 0)
        notes = [node for node in workflow.get("nodes", []) if node.get("type") in ("MarkdownNote", "Note")]
        text = str(notes[0]["widgets_values"][0]) if notes else ""
        trainers = [node for node in workflow.get("nodes", []) if node.get("type") == TRAINER]
        steps = trainers[0]["widgets_values"][0] if trainers else 0
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return Told()
    said = [line.strip() for line in text.splitlines()]
    heading = next((line for line in said if line.startswith("#")), "")
    sentence = next((line for line in said if plain_text(line)[:1].isalnum() and not line.startswith(COSTS)), "")
    costs = next((line for line in said if line.startswith(COSTS)), "")
    card = CARD.search(costs)
    heading, sentence, costs = (lines.get(line, line) for line in (heading, sentence, costs))
    parts = (plain_text(sentence), plain_text(BOLD_START.sub("", costs, count=1)))
    description = shorten(" ".join(parts), MOST_LETTERS, placeholder=" …")
    return Told(
        plain_text(heading).lstrip("# "),
        description,
        order if isinstance(order, int | float) else LAST,
        card[1] if card else "",
        steps if isinstance(steps, int) else 0,
        minutes if isinstance(minutes, int) else 0,
    )


def plain_text(line: str) -> str:
    """A line of Markdown without its stars and backticks."""
    return line.strip().replace("*", "").replace("`", "")


def placeholder(name: str) -> bytes:
    """A thumbnail (JPEG) for a template that has none: its title on the frontend's dark grey."""
    picture = Image.new("RGB", SIZE, "#26262b")
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, SIZE[1] - 12, SIZE[0], SIZE[1]), "#3f789e")
    draw.text((SIZE[0] / 2, SIZE[1] / 2), title(name), "#e8e8ea", ImageFont.load_default(40), anchor="mm")
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
