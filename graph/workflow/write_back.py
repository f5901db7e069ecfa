"""Put changed values of a prompt back into the workflow it was made from, so that the canvas shows what ran."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from .widgets import input_specs, saved_slots, widget_values


def write_back(
    workflow: Mapping[str, Any], object_info: Mapping[str, Any], before: Mapping[str, Any], after: Mapping[str, Any]
) -> dict[str, Any] | None:
    """A copy of the UI workflow whose widgets hold what ``after`` changed in ``before``.

    None where a change has no widget of its own at the top level: inside a subgraph, or where it replaced a link.
    """
    changed = copy.deepcopy(dict(workflow))
    nodes = {str(node["id"]): node for node in changed.get("nodes", [])}
    for node_id, node in after.items():
        old = before[node_id].get("inputs", {})
        for name, value in node.get("inputs", {}).items():
            if name in old and old[name] == value:
                continue
            if node_id not in nodes or isinstance(old.get(name), list):
                return None
            _set_widget(nodes[node_id], object_info[node["class_type"]], name, value)
    return changed


def _set_widget(node: dict[str, Any], info: Mapping[str, Any], name: str, value: Any) -> None:
    """Set one widget, by position and in the named map beside it, if there is one."""
    slots = saved_slots(spec for spec in input_specs(info) if spec.is_widget)
    values = node.get("widgets_values")
    if isinstance(values, dict):
        values[name] = value
    else:
        saved = list(values or [])
        if len(saved) < len(slots):  # an older file: what it does not say is the default
            known = widget_values(info, node)
            saved += [known.get(slot) if slot else "fixed" for slot in slots[len(saved) :]]
        saved[slots.index(name)] = value
        node["widgets_values"] = saved
    if isinstance(node.get("widgets_values_named"), dict):
        node["widgets_values_named"][name] = value
