"""The graph while it is being made."""

from __future__ import annotations

from typing import Any

from ...nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS
from .report import Report


class Draft:
    """A prompt (API format) that grows node by node, in frames with a title."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.prompt: dict[str, Any] = {}
        self.frames: dict[str, list[str]] = {}

    def add(self, frame: str, node_id: str, title: str = "", **inputs: Any) -> str:
        """A node with its defaults but for ``inputs``; returns its id in the prompt.

        None stands for the default. A number outside a widget's limits becomes the nearest one that is allowed, an
        unknown option the default, and the report says so.
        """
        name = NODE_DISPLAY_NAME_MAPPINGS[node_id]
        types = NODE_CLASS_MAPPINGS[node_id].INPUT_TYPES()
        declared = {**types["required"], **types.get("optional", {})}
        values = {key: options["default"] for key, (_, options) in declared.items() if "default" in options}
        for key, value in inputs.items():
            if value is not None:
                values[key] = self._fitting(f"{name}: {key}", value, *declared[key])
        number = str(len(self.prompt) + 1)
        self.prompt[number] = {"class_type": node_id, "inputs": values, "_meta": {"title": title or name}}
        self.frames.setdefault(frame, []).append(number)
        return number

    def _fitting(self, where: str, value: Any, kind: Any, options: dict[str, Any]) -> Any:
        if isinstance(kind, list):
            if value not in kind:
                self.report.changed.append(f"{where}: there is no {value!r} here; it is {options['default']!r}")
                return options["default"]
            return value
        if kind not in ("INT", "FLOAT"):
            return value
        fitting = min(max(value, options.get("min", value)), options.get("max", value))
        if fitting != value:
            self.report.changed.append(f"{where}: {value} is outside of our limits; it is {fitting}")
        return round(fitting) if kind == "INT" else float(fitting)
