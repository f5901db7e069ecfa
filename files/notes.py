"""Tags and a note on a run: their file in the run's folder, its limits and its form.

The training itself never touches it. A sweep labels its runs by it, and the server shows it and lets people change it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .whole import write_text

FILE = "notes.json"
MOST_TAGS, LONGEST_TAG, LONGEST_NOTE = 20, 40, 4000


def write(folder: Path, notes: Mapping[str, Any]) -> None:
    """Write ``{"tags": [...], "note": ...}`` of a run, whole. Raises ValueError where nothing can be written."""
    write_text(folder / FILE, json.dumps(notes, indent=1, ensure_ascii=False) + "\n")
