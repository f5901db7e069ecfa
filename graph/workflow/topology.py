"""One level of a UI-format workflow (the root or a subgraph definition) as nodes, slots and links."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .lenient import as_dicts, as_list
from .widgets import DYNAMIC_COMBO, input_specs, unread_inputs, widget_values
from .workflow import WorkflowError

NEVER, BYPASS = 2, 4  # modes: muted, bypassed
INPUT_NODE, OUTPUT_NODE = "-10", "-20"  # the two ends of a subgraph definition
VIRTUAL = frozenset({"Reroute", "PrimitiveNode", "Note", "MarkdownNote"})  # nodes that exist in the frontend only

CONTROLS = ("fixed", "increment", "decrement", "randomize")  # of "control after generate"


@dataclass(frozen=True)
class Link:
    id: str
    origin: str
    origin_slot: int
    target: str
    target_slot: int


@dataclass
class Slot:
    """One input of a node, as the frontend has it after loading."""

    name: str
    type: str
    is_widget: bool = False
    link: Link | None = None


@dataclass
class Node:
    id: str
    type: str
    mode: int
    title: str
    inputs: list[Slot]
    output_types: list[str]
    widgets: dict[str, Any]
    """The widgets' values by name, for an ordinary node; a virtual one or a subgraph instance has none."""
    raw: Mapping[str, Any]


@dataclass
class Level:
    """All nodes and links of one level. `definition` is the raw subgraph definition, None for the root."""

    nodes: dict[str, Node] = field(default_factory=dict)
    links: dict[str, Link] = field(default_factory=dict)
    definition: Mapping[str, Any] | None = None
    entering: dict[str, list[Link]] = field(default_factory=dict)
    """The links by the id of the node they end at."""
    leaving: dict[str, list[Link]] = field(default_factory=dict)
    """The links by the id of the node they start at, in ascending order of link ids."""


def read_level(
    graph: Mapping[str, Any], object_info: Mapping[str, Any], definitions: Mapping[str, Any], is_root: bool
) -> Level:
    """Parse one level. Links are found through each node's own named inputs, never by schema position."""
    level = Level(definition=None if is_root else graph)
    for link in sorted(_links(graph.get("links")), key=lambda link: (len(link.id), link.id)):
        level.links[link.id] = link
        level.entering.setdefault(link.target, []).append(link)
        level.leaving.setdefault(link.origin, []).append(link)
    for raw in as_list(graph.get("nodes")):
        if not isinstance(raw, Mapping) or "id" not in raw or not isinstance(raw.get("type"), str):
            raise WorkflowError("workflow: every node must be an object with an `id` and a `type`")
        node = _node(raw, object_info, definitions)
        _attach(node, level)
        level.nodes.setdefault(node.id, node)
    return level


def _links(raw: Any) -> Iterator[Link]:
    names = ("id", "origin_id", "origin_slot", "target_id", "target_slot")
    for item in as_list(raw):
        fields = [item.get(name) for name in names] if isinstance(item, Mapping) else item
        if isinstance(fields, list) and len(fields) >= 5 and _is_index(fields[2]) and _is_index(fields[4]):
            yield Link(str(fields[0]), str(fields[1]), int(fields[2]), str(fields[3]), int(fields[4]))


def _is_index(value: Any) -> bool:
    return isinstance(value, int | float) and value >= 0 and value == int(value)


def _node(raw: Mapping[str, Any], object_info: Mapping[str, Any], definitions: Mapping[str, Any]) -> Node:
    kind = raw["type"]
    title = raw.get("title")
    mode = raw.get("mode", 0)
    definition = definitions.get(kind)
    info = object_info.get(kind) if definition is None and kind not in VIRTUAL else None
    if definition is not None:
        inputs, outputs = _io(definition.get("inputs")), [slot.type for slot in _io(definition.get("outputs"))]
    elif info is not None:
        for spec in unread_inputs(info):
            where = f"node {raw['id']} ({kind}): input {spec.name!r}"
            raise WorkflowError(f"{where} is of the kind {spec.type}, which is not read; export it in API format")
        inputs, outputs = _class_slots(info, raw), [_type(kind) for kind in info.get("output") or []]
    else:
        inputs, outputs = _io(raw.get("inputs")), []
    outputs += [slot.type for slot in _io(raw.get("outputs"))][len(outputs) :]
    widgets = widget_values(info, raw) if info is not None else _unknown_widgets(raw, kind, definition)
    title = title or (info or {}).get("display_name") or kind
    return Node(str(raw["id"]), kind, mode, str(title), inputs, outputs, widgets, raw)


def _class_slots(info: Mapping[str, Any], raw: Mapping[str, Any]) -> list[Slot]:
    """Sockets first, then the sockets of widgets, then what the saved node has beyond its class."""
    specs = [spec for spec in input_specs(info) if spec.has_socket]
    slots = [Slot(spec.name, spec.type) for spec in specs if not spec.is_widget]
    slots += [Slot(spec.name, spec.type, True) for spec in specs if spec.is_widget]
    known = {spec.name for spec in specs}
    combos = tuple(f"{spec.name}." for spec in specs if spec.type == DYNAMIC_COMBO)
    more = [slot for slot in _io(raw.get("inputs")) if slot.name not in known]
    return slots + [slot for slot in more if not slot.is_widget or slot.name.startswith(combos or ("\0",))]


def _io(raw: Any) -> list[Slot]:
    items = as_dicts(raw)
    return [Slot(str(item.get("name", "")), _type(item.get("type", "*")), bool(item.get("widget"))) for item in items]


def _type(value: Any) -> str:
    return "COMBO" if isinstance(value, list | tuple) else str(value)


def _unknown_widgets(raw: Mapping[str, Any], kind: str, definition: Any) -> dict[str, Any]:
    """What is known of the widgets of a node whose class is not installed: the values that have a name."""
    if kind in VIRTUAL or definition is not None:
        return {}
    for values in (raw.get("widgets_values_named"), raw.get("widgets_values")):
        if isinstance(values, Mapping):
            return dict(values)
    return _named_by_sockets(raw) or {}


def _named_by_sockets(raw: Mapping[str, Any]) -> dict[str, Any] | None:
    """A list of values by the names of the widgets' sockets, which newer files list in the same order.

    A seed is followed by its "control after generate", which has no socket. None where the two do not fit.
    """
    values, sockets = as_list(raw.get("widgets_values")), [slot for slot in _io(raw.get("inputs")) if slot.is_widget]
    named: dict[str, Any] = {}
    place = 0
    for slot in sockets:
        if place >= len(values):
            return None
        named[slot.name] = values[place]
        is_controlled = slot.type == "INT" and place + 1 < len(values) and values[place + 1] in CONTROLS
        place += 1 + is_controlled
    return named if place == len(values) else None


def nameless_values(node: Node) -> int:
    """How many saved values of a node of an unknown class have no name and are lost in a prompt."""
    return 0 if node.widgets or node.type in VIRTUAL else len(as_list(node.raw.get("widgets_values")))


def _attach(node: Node, level: Level) -> None:
    """Give each input its link: the one its saved slot names, else one that only the link table knows."""
    saved = {str(item.get("name", "")): str(item.get("link")) for item in as_dicts(node.raw.get("inputs"))}
    for slot in node.inputs:
        link = level.links.get(saved.get(slot.name, ""))
        if link is not None and link.target == node.id:
            slot.link = link
    unnamed = (link for link in level.entering.get(node.id, []) if link.id not in saved.values())
    for link in unnamed:
        if link.target_slot < len(node.inputs):
            slot = node.inputs[link.target_slot]
            slot.link = slot.link or link
