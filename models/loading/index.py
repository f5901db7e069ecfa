"""What a pipeline's folder says it consists of: the index of a plain pipeline, or of a modular one."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ...files.whole import read_object

INDEX, MODULAR_INDEX = "model_index.json", "modular_model_index.json"


def index_file(folder: Path) -> Path | None:
    """The file of that folder, a plain pipeline's first; None where there is neither."""
    return next((folder / name for name in (INDEX, MODULAR_INDEX) if (folder / name).is_file()), None)


def check_complete(folder: Path, names: Collection[str]) -> None:
    """Raises ValueError where a pipeline's folder lacks some of its parts: it was copied or fetched by halves."""
    if lacking := sorted(name for name in names if not (folder / name).is_dir()):
        raise ValueError(f"the model {str(folder)!r} lacks {', '.join(lacking)}: get its folder whole, and choose that")


def read_index(folder: Path) -> dict[str, Any]:
    """The index, each part as [library, class]: a modular one says beside these where the part is."""
    index = read_object(index_file(folder) or folder / INDEX)
    return {
        name: kind_of(value, (folder / name).is_dir()) if isinstance(value, list) and len(value) == 3 else value
        for name, value in index.items()
    }


def kind_of(part: list[Any], is_there: bool) -> list[str | None]:
    """A part's library and class in a modular index, which has none for a pipeline that was saved before it was loaded,
    but what the part has to be."""
    return list(part[2]["type_hint"]) if is_there and part[0] is None else part[:2]


def parts_of(index: Mapping[str, Any]) -> dict[str, list[str | None]]:
    """The parts that a pipeline's index names, each with its library and class; other lists are settings."""
    return {
        name: value
        for name, value in index.items()
        if isinstance(value, list) and len(value) == 2 and all(word is None or isinstance(word, str) for word in value)
    }
