"""Which widgets a node has in the official frontend, in which order, and what a saved workflow says they hold.

Read from the sources of comfyui-frontend-package 1.58.1 (litegraphService, useIntWidget, useComboWidget, ...).
"""

import math
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

BASIC_WIDGETS = ("INT", "FLOAT", "BOOLEAN", "STRING", "COMBO")
UPLOAD_BUTTONS = ("IMAGEUPLOAD", "AUDIOUPLOAD")
OTHER_WIDGETS = (
    *("BOUNDING_BOX", "BOUNDING_BOXES", "CHART", "COLOR", "COLORS", "COMPOSITOR", "CURVE"),
    *("GALLERIA", "MARKDOWN", "PAINTER", "RANGE", "TEXTAREA", "VIDEO_EDIT"),
)
DYNAMIC_COMBO = "COMFY_DYNAMICCOMBO_V3"
"""A combo each of whose options brings inputs of its own; they follow it as ``name.inner``."""
DYNAMIC = re.compile(r"COMFY_\w+_V3")
PLAIN_SOCKETS = ("COMFY_MATCHTYPE_V3", "COMFY_MULTITYPED_V3", "COMFY_AUTOGROW_V3")
"""Kinds whose sockets a saved node lists itself; they are read as long as they hold no widgets."""
WIDGET_TYPES = frozenset((*BASIC_WIDGETS, DYNAMIC_COMBO, *UPLOAD_BUTTONS, *OTHER_WIDGETS))
UPLOAD_OPTIONS = ("image_upload", "video_upload", "animated_image_upload", "audio_upload", "mesh_upload")


@dataclass(frozen=True)
class InputSpec:
    """One declared input of a node class."""

    name: str
    type: str
    options: Mapping[str, Any] = field(default_factory=dict)
    optional: bool = False

    @property
    def forced(self) -> bool:
        """Always a socket; `defaultInput` means the same, but only on optional inputs."""
        return bool(self.options.get("forceInput") or (self.optional and self.options.get("defaultInput")))

    @property
    def is_widget(self) -> bool:
        return self.options.get("widgetType", self.type) in WIDGET_TYPES and not self.forced

    @property
    def has_socket(self) -> bool:
        return not (self.is_widget and self.options.get("socketless"))

    @property
    def choices(self) -> list[Any]:
        listed = list(self.options.get("options") or [])
        return [option["key"] for option in listed] if self.type == DYNAMIC_COMBO else listed

    @property
    def default(self) -> Any:
        """What a fresh widget holds."""
        if self.type in ("COMBO", DYNAMIC_COMBO):
            if self.options.get("multi_select"):
                return []
            return self.options.get("default") or next(iter(self.choices), None)
        empty = {"INT": 0, "FLOAT": 0, "BOOLEAN": False, "STRING": ""}
        default = self.options.get("default")
        return empty.get(self.type) if default is None else default

    @property
    def control_slots(self) -> int:
        """How many values of "control after generate" a saved node holds behind this widget's own."""
        control = self.options.get("control_after_generate")
        if control is None and self.type == "INT":
            control = self.name in ("seed", "noise_seed")
        if not control or self.type not in ("INT", "FLOAT", "COMBO"):
            return 0
        is_plain_combo = self.type == "COMBO" and not self.options.get("multi_select")
        return 2 if is_plain_combo else 1

    def inner(self, chosen: Any) -> "list[InputSpec]":
        """What the chosen option of a dynamic combo brings along."""
        if self.type != DYNAMIC_COMBO:
            return []
        options = (option for option in self.options.get("options") or [] if option["key"] == chosen)
        brought: Mapping[str, Any] = next(options, {})
        specs = declared_specs({"input": brought.get("inputs") or {}})
        return [replace(spec, name=f"{self.name}.{spec.name}") for spec in specs.values()]

    def settled(self, value: Any) -> Any:
        """A number as the frontend's widget takes it from a PrimitiveNode: an INT on a multiple of its step counted
        from the minimum, a FLOAT rounded to the digits of its step and kept within its limits.
        """
        if self.type not in ("INT", "FLOAT") or isinstance(value, bool) or not isinstance(value, int | float):
            return value
        if not math.isfinite(value):
            return value
        low, high = self.options.get("min", 0), self.options.get("max", 2048)
        if self.type == "INT":
            step = self.options.get("step") or 1
            shift = math.fmod(low, step) if step != 1 else 0
            return value if isinstance(value, int) and step == 1 else int(_nearest(value - shift, step) + shift)
        digits = max(0, -math.floor(math.log10(self.options.get("step") or 0.5)))
        grain = self.options.get("round") or (10.0**-digits if digits else 0)
        return min(max(round(_nearest(value, grain), digits), low), high) if grain else value


def _nearest(value: float, step: float) -> float:
    """The multiple of ``step`` next to the value; halves go up, as JavaScript rounds."""
    return math.floor(value / step + 0.5) * step


def input_specs(info: Mapping[str, Any]) -> list[InputSpec]:
    """All declared inputs of an /object_info entry, in the order in which the frontend makes their widgets."""
    specs = declared_specs(info)
    order = info.get("input_order") or {}
    ordered = [specs[name] for name in order.get("required", []) if name in specs and not specs[name].optional]
    ordered += [specs[name] for name in order.get("optional", []) if name in specs and specs[name].optional]
    listed = {spec.name for spec in ordered}
    return ordered + [spec for spec in specs.values() if spec.name not in listed]


def declared_specs(info: Mapping[str, Any]) -> dict[str, InputSpec]:
    """All declared inputs of an /object_info entry by name, required ones first, in the order of declaration."""
    inputs = info.get("input") or {}
    return {
        name: _spec(name, spec, category == "optional")
        for category in ("required", "optional")
        for name, spec in (inputs.get(category) or {}).items()
    }


def _spec(name: str, spec: Any, optional: bool) -> InputSpec:
    options = dict(spec[1]) if len(spec) > 1 and isinstance(spec[1], Mapping) else {}
    if isinstance(spec[0], list | tuple):  # the old way to write a combo
        return InputSpec(name, "COMBO", options | {"options": list(spec[0])}, optional)
    return InputSpec(name, str(spec[0]), options, optional)


def widget_values(info: Mapping[str, Any], node: Mapping[str, Any]) -> dict[str, Any]:
    """The value of every widget of a saved node that belongs in the prompt, by name.

    Positions decide, as in the frontend. The named map that newer files carry beside them is read where positions
    cannot be: no list, or a list of another length than this node class would save.
    """
    specs = input_specs(info)
    values, named = node.get("widgets_values"), node.get("widgets_values_named")
    if isinstance(values, Mapping):
        named, values = values, None
    if any(spec.type == DYNAMIC_COMBO for spec in specs):
        specs = _unfolded(specs, values, named)
    specs = [spec for spec in specs if spec.is_widget]
    slots = saved_slots(specs)
    values = _without_forced(info, specs, values, len(slots)) if isinstance(values, list) else []
    if isinstance(named, Mapping) and len(values) not in (len(slots), len(slots) + _upload_buttons(info)):
        found = {str(name): value for name, value in named.items()}
    else:
        found = {name: value for name, value in zip(slots, values, strict=False) if name is not None}
    return {spec.name: _filled(spec, found) for spec in specs if spec.type not in UPLOAD_BUTTONS}


def saved_slots(widgets: Iterable[InputSpec]) -> list[str | None]:
    """Whose value each place of a saved node's ``widgets_values`` holds; None for "control after generate"."""
    return [name for spec in widgets for name in [spec.name] + [None] * spec.control_slots]


def _unfolded(specs: Iterable[InputSpec], values: Any, named: Any) -> list[InputSpec]:
    """The inputs with those that the chosen options of dynamic combos bring along, each behind its combo."""
    saved, known = iter(values if isinstance(values, list) else ()), named if isinstance(named, Mapping) else {}
    pending, found = deque(specs), list[InputSpec]()
    while pending:
        spec = pending.popleft()
        found.append(spec)
        if spec.is_widget:
            chosen = next(saved, known.get(spec.name, spec.default))
            for _ in range(spec.control_slots):
                next(saved, None)
            pending.extendleft(reversed(spec.inner(chosen)))
    return found


def unread_inputs(info: Mapping[str, Any]) -> list[InputSpec]:
    """Inputs of kinds that change with what is linked or typed, and that cannot be told from a saved node."""
    found, pending = [], deque(declared_specs(info).values())
    while pending:
        spec = pending.popleft()
        if spec.type == DYNAMIC_COMBO:
            pending.extend(inner for choice in spec.choices for inner in spec.inner(choice))
        elif DYNAMIC.fullmatch(spec.type) and (spec.type not in PLAIN_SOCKETS or _grows_widgets(spec)):
            found.append(spec)
    return found


def _grows_widgets(spec: InputSpec) -> bool:
    template = spec.options.get("template")
    inner = template.get("input") if isinstance(template, Mapping) else None
    return isinstance(inner, Mapping) and any(each.is_widget for each in declared_specs({"input": inner}).values())


def _filled(spec: InputSpec, found: Mapping[str, Any]) -> Any:
    value = found.get(spec.name, spec.default)
    return spec.choices[0] if value is None and spec.type == "COMBO" and spec.choices else value


def _without_forced(info: Mapping[str, Any], widgets: list[InputSpec], values: list[Any], slots: int) -> list[Any]:
    """Files older than sockets that are always sockets hold a value for each such input too: drop those."""
    is_forced = list(_forced_slots(info, {spec.name for spec in widgets}))
    if not any(is_forced) and len(values) == slots:
        return values
    if len(values) != len(is_forced):
        return values
    return [value for value, forced in zip(values, is_forced, strict=True) if not forced]


def _forced_slots(info: Mapping[str, Any], widgets: set[str]) -> Iterator[bool]:
    for spec in declared_specs(info).values():
        if spec.name in widgets or spec.forced:
            yield spec.forced
            if spec.options.get("control_after_generate"):
                yield False


def _upload_buttons(info: Mapping[str, Any]) -> int:
    """1 if the frontend adds an upload button, which saves a value behind all others."""
    required = [spec for spec in declared_specs(info).values() if not spec.optional]
    return int(any(spec.type == "COMBO" and any(map(spec.options.get, UPLOAD_OPTIONS)) for spec in required))
