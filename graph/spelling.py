"""How people call a node, and what they may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

PREFIX = "Rollout"  # of our classes, left out at will


def without_prefix(class_type: str) -> str:
    """``OptimizerStep`` for ``RolloutOptimizerStep``; ``Rollout`` itself keeps its name."""
    return class_type.removeprefix(PREFIX) or class_type


def find_class(name: str, object_info: Mapping[str, Any]) -> str | None:
    """The class that is called so: by itself, without the prefix, or by what is shown, in any case."""
    for names in (lambda kind: kind, without_prefix, lambda kind: str(object_info[kind].get("display_name", ""))):
        for kind in object_info:
            if names(kind).lower() == name.strip().lower() != "":
                return kind
    return None


def class_names(object_info: Mapping[str, Any]) -> list[str]:
    """All names by which classes are found."""
    shown = (str(info.get("display_name", "")) for info in object_info.values())
    return list(dict.fromkeys(filter(None, (*map(without_prefix, object_info), *shown, *object_info))))


def did_you_mean(name: str, known: Iterable[str]) -> str | None:
    """The nearest of the known names as a question; None if none is near."""
    folded: dict[str, str] = {}
    for each in known:
        folded.setdefault(each.lower(), each)
    close = difflib.get_close_matches(name.lower(), list(folded), 3, 0.6)
    return f"did you mean {' or '.join(folded[match] for match in close)}?" if close else None
