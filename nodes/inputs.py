"""How our nodes declare their inputs: ComfyUI's ``(type, options)`` pairs, each with a tooltip in a trainer's words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, TypeVar

from ..files.names import trouble_with_name

Input = tuple[Any, dict[str, Any]]
Settings = TypeVar("Settings")

UNIQUE_ID = {"unique_id": "UNIQUE_ID"}
"""The hidden input by which a node learns its id."""

LARGEST_SEED = 2**64 - 1
"""As ComfyUI's own nodes have it: seeds of other tools and workflows are taken as they are."""


def wire(kind: str, tooltip: str) -> Input:
    """A socket for a wire of this type."""
    return (kind, {"tooltip": tooltip})


def integer(default: int, low: int, high: int, tooltip: str, **options: Any) -> Input:
    return ("INT", {"default": default, "min": low, "max": high, "tooltip": tooltip, **options})


def number(default: float, low: float, high: float, step: float, tooltip: str, **options: Any) -> Input:
    """``step`` is what one click on the widget's arrow changes."""
    limits = {"default": default, "min": low, "max": high, "step": step, "round": False}
    return ("FLOAT", {**limits, "tooltip": tooltip, **options})


def choice(values: list[str] | tuple[str, ...], default: str, tooltip: str, **options: Any) -> Input:
    return (list(values), {"default": default, "tooltip": tooltip, **options})


def switch(default: bool, tooltip: str, **options: Any) -> Input:
    return ("BOOLEAN", {"default": default, "tooltip": tooltip, **options})


def line(default: str, tooltip: str, **options: Any) -> Input:
    """One line of text."""
    return ("STRING", {"default": default, "tooltip": tooltip, **options})


def seed(tooltip: str) -> Input:
    """A seed that stays as it is from run to run unless the user asks for another behaviour."""
    return integer(0, 0, LARGEST_SEED, tooltip, control_after_generate="fixed")


def defaults(node: Any) -> dict[str, Any]:
    """What the widgets of a node class say where nobody has touched them."""
    types = node.INPUT_TYPES()
    declared = {**types["required"], **types.get("optional", {})}
    return {name: options["default"] for name, (_, options) in declared.items() if "default" in options}


def settings_in(values: Mapping[str, Any], kind: type[Settings]) -> Settings:
    """The settings, a dataclass, that some of a node's widgets make: those of its fields' names."""
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in values.items() if name in names})


def refusal(name: str, check: Callable[[], object]) -> str | None:
    """What VALIDATE_INPUTS says of the input of this name if the check raises ValueError: it begins with the name."""
    try:
        check()
    except ValueError as error:
        said = str(error)
        return said if said.startswith(f"{name}:") else f"{name}: {said}"
    return None


def plain_name(name: str | None, what: str) -> bool | str:
    """What VALIDATE_INPUTS says of the name of a file or folder (``what``); None is a wire, whose value comes later."""
    reason = None if name is None else trouble_with_name(name)
    return True if reason is None else f"{name!r:.60} {reason}; give a plain {what} name, without slashes"


def checked_name(name: str, what: str) -> str:
    """The name, once the wire that it came through has said it. Raises ValueError where it is no plain one."""
    verdict = plain_name(name, what)
    if isinstance(verdict, str):
        raise ValueError(f"name: {verdict}")
    return name
