"""Follow a link back to the node that really makes the value.

Reroutes, bypassed and muted nodes, and the walls of subgraphs are passed as the official frontend passes them
(ExecutableNodeDTO of comfyui-frontend-package 1.58.1).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .subgraphs import Scope
from .topology import BYPASS, INPUT_NODE, NEVER, OUTPUT_NODE, VIRTUAL, Node
from .workflow import WorkflowError


@dataclass(frozen=True)
class Origin:
    """The end of the search: an output of an executable node."""

    node_id: str
    slot: int


@dataclass(frozen=True)
class Value:
    """The end of the search: a value that a subgraph instance holds for the input."""

    value: Any


@dataclass(frozen=True)
class Place:
    """One stop on the way: an input or an output of a node, and the type that is looked for."""

    scope: Scope
    node: Node
    slot: int
    is_input: bool
    type: str | None = None

    @property
    def key(self) -> tuple[Any, ...]:
        return (self.scope.path, self.node.id, self.slot, self.is_input)


def resolve(scope: Scope, node: Node, index: int) -> Origin | Value | None:
    """What feeds one input: an output, a value, or nothing (the widget's own value then stays).

    Raises WorkflowError for links that run in a circle without meeting a node that executes.
    """
    place: Place | Origin | Value | None = Place(scope, node, index, True)
    seen = set()
    while isinstance(place, Place):
        if place.key in seen:
            where = f"node {scope.execution_id(node)}: input {node.inputs[index].name!r}"
            raise WorkflowError(f"{where} is fed by a circle of links")
        seen.add(place.key)
        place = _before_input(place) if place.is_input else _before_output(place)
    return place


def _before_input(place: Place) -> Place | Value | None:
    scope, slot = place.scope, place.node.inputs[place.slot]
    override = scope.override(place.node.id, slot.name)
    if override is not None:
        return Value(*override)
    if slot.link is None:
        return None
    if slot.link.origin == INPUT_NODE and scope.instance is not None:
        return _outside(scope, slot.link.origin_slot)
    origin = scope.level.nodes.get(slot.link.origin)
    if origin is None:
        return None
    return Place(scope, origin, slot.link.origin_slot, False, place.type or slot.type)


def _outside(scope: Scope, index: int) -> Place | Value | None:
    """Out of a subgraph through its input: on along the instance's own link, or the value that it shows."""
    parent, instance = scope.parent, scope.instance
    assert parent is not None
    assert instance is not None
    if index >= len(instance.inputs):
        return None
    slot = instance.inputs[index]
    if slot.link is not None or parent.override(instance.id, slot.name) is not None:
        return Place(parent, instance, index, True)
    return Value(scope.promoted[index]) if index in scope.promoted else None


def _before_output(place: Place) -> Place | Origin | None:
    scope, node = place.scope, place.node
    if node.mode == NEVER:
        return None
    if node.mode == BYPASS:
        index = bypass_input(node, place.slot, place.type or "*")
        return None if index is None else Place(scope, node, index, True)
    if scope.is_instance(node):
        return _inside(scope.child(node), place)
    if node.type in VIRTUAL:
        is_passed = node.type == "Reroute" and node.inputs
        return Place(scope, node, 0, True, place.type) if is_passed else None
    return Origin(scope.execution_id(node), place.slot)


def _inside(inner: Scope, place: Place) -> Place | None:
    """Into a subgraph through its output: on from the inner node that feeds it."""
    links = [link for link in inner.level.entering.get(OUTPUT_NODE, []) if link.target_slot == place.slot]
    for link in links[:1]:
        if link.origin == INPUT_NODE and link.origin_slot < len(place.node.inputs):
            return Place(place.scope, place.node, link.origin_slot, True, place.type)
        node = inner.level.nodes.get(link.origin)
        return Place(inner, node, link.origin_slot, False, place.type) if node is not None else None
    return None


def bypass_input(node: Node, slot: int, wanted: str) -> int | None:
    """Which input of a bypassed node stands in for an output: same index, else exact type, else what fits."""
    types = [item.type for item in node.inputs]
    made = node.output_types[slot] if slot < len(node.output_types) else "*"
    if wanted in ("*", ""):
        return (slot if slot < len(types) else 0) if types else None
    fitting = [i for i, kind in enumerate(types) if fits(kind, made) and fits(kind, wanted)]
    if slot in fitting:
        return slot
    exact: Iterator[int] = (i for i, kind in enumerate(types) if kind == wanted)
    return next(exact, next(iter(fitting), None))


def fits(one: str, other: str) -> bool:
    """The frontend's rule for two slot types: any wildcard, equal, or overlapping comma lists; case is ignored."""
    if any(kind in ("", "*", "0") for kind in (one, other)):
        return True
    return any(a == b or "*" in (a, b) for a in one.lower().split(",") for b in other.lower().split(","))
