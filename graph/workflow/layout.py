"""API format -> UI format: a prompt as a workflow that opens well on the canvas; `to_prompt` is the way back."""

import json
import math
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Any

from ..node_class import is_link
from .convert import PACK_KEYS
from .lenient import as_dict
from .widgets import InputSpec, input_specs
from .wires import wires
from .workflow import WorkflowError

# Sizes in pixels of the canvas, as the frontend draws nodes.
WIDTH, PITCH = 320, 370  # of a node, and from one column to the next
LEFT, TOP = 40, 80
GAP = 60  # between two nodes of a column; the lower one's title bar lies in it
HEAD, SLOT, WIDGET, TEXT_BOX = 40, 22, 26, 120
FRAME, FRAME_TITLE = 15, 60  # a group's frame around its nodes
NOTE_HEAD, NOTE_LETTERS, NOTE_LINE = 60, 46, 13  # of a note, a column wide: it shall fit on a phone
OPTIONAL = 7  # the shape of a socket that may stay empty
SCREEN = 1800
COLORS = ("#3f789e", "#8a5", "#88a", "#a56", "#b06634")  # of groups, in turn
LONGEST_NUMBER = 15  # digits that a browser keeps


@dataclass(frozen=True)
class Group:
    """Nodes that stand together in one frame."""

    title: str
    nodes: Sequence[str]
    """Ids; those that are not in the prompt are passed over, and so is a group without any."""


@dataclass
class _Node:
    """A node on its way to the canvas."""

    id: str
    raw: Mapping[str, Any]
    info: Mapping[str, Any]
    sockets: list[InputSpec]
    height: int
    column: int = 0
    y: int = 0
    links: dict[str, int] = field(default_factory=dict)
    """Link ids by input."""

    @property
    def x(self) -> int:
        return LEFT + PITCH * self.column

    @property
    def sources(self) -> dict[str, tuple[str, int]]:
        """Where linked inputs come from: (node id, output index)."""
        return {name: (value[0], int(value[1])) for name, value in self.raw["inputs"].items() if is_link(value)}


def to_workflow(
    prompt: Mapping[str, Any],
    object_info: Mapping[str, Any],
    *,
    groups: Sequence[Group] = (),
    note: str = "",
    room: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """The workflow (UI format 0.4) of a prompt, so that ``to_prompt(to_workflow(prompt)) == prompt``.

    Every link runs from left to right and no two nodes overlap. Nodes keep their ids and titles; widgets that the
    prompt does not set get their defaults. ``groups`` stand from left to right in the order given, before all nodes
    that are in none. ``note`` is Markdown, shown left of the graph. ``room`` is further height in pixels by class, for
    nodes that draw pictures. The same prompt gives the same workflow.

    Raises WorkflowError for a link to a node that does not exist, a cycle, an input that the node's class does not
    have, and groups whose order would send a link backwards.
    """
    nodes = {node_id: _node(node_id, raw, object_info, room or {}) for node_id, raw in prompt.items()}
    order = _execution_order(nodes)
    blocks = [[node_id for node_id in group.nodes if node_id in nodes] for group in groups]
    blocks.append([node_id for node_id in nodes if not any(node_id in block for block in blocks)])
    _arrange(nodes, order, blocks, first=1 if note else 0)
    links = _links(nodes)
    rank = {node.id: number for number, node in enumerate(sorted(nodes.values(), key=lambda node: (node.x, node.y)))}
    saved = [_saved(node, rank[node.id], links) for node in nodes.values()]
    routed = wires(saved, links)
    last = max((node["id"] for node in saved if isinstance(node["id"], int)), default=0)
    if note:
        last += 1
        saved.append(_saved_note(last, len(saved), note))
    width = PITCH * (1 + max((node.column for node in nodes.values()), default=0))
    return {
        "id": str(uuid.uuid5(uuid.NAMESPACE_OID, json.dumps([prompt, note]))),
        "revision": 0,
        "last_node_id": last,
        "last_link_id": len(links),
        "nodes": saved,
        "links": links,
        "groups": list(_frames(nodes, groups, blocks)),
        "config": {},
        "extra": {"ds": {"scale": round(min(0.6, SCREEN / width), 2), "offset": [LEFT, 120]}, **routed},
        "version": 0.4,
    }


def _node(node_id: str, raw: Mapping[str, Any], object_info: Mapping[str, Any], room: Mapping[str, int]) -> _Node:
    kind, inputs = raw["class_type"], as_dict(raw.get("inputs"))
    known = kind in object_info
    info = object_info[kind] if known else _info_of_unknown(inputs)
    specs = input_specs(info)
    for name in inputs if known else ():
        if name not in {spec.name for spec in specs}:
            raise WorkflowError(f"node {node_id} ({kind}) has no input {name!r}; leave it out")
    # Sockets of widgets are saved only where something is linked to them.
    sockets = [spec for spec in specs if not spec.is_widget]
    sockets += [spec for spec in specs if spec.is_widget and spec.has_socket and is_link(inputs.get(spec.name))]
    widgets = [spec for spec in specs if spec.is_widget]
    rows = sum(
        TEXT_BOX if spec.options.get("multiline") else WIDGET * (1 + bool(spec.control_slots)) for spec in widgets
    )
    height = HEAD + SLOT * max(len(sockets), len(info.get("output") or [])) + rows + room.get(kind, 0)
    return _Node(node_id, {**raw, "inputs": dict(inputs)}, info if known else {}, sockets, height)


def _info_of_unknown(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """A class that is not installed has the sockets that are linked, of any type."""
    return {"input": {"required": {name: ["*", {}] for name, value in inputs.items() if is_link(value)}}}


def _execution_order(nodes: Mapping[str, _Node]) -> list[str]:
    sources = {node_id: [source for source, _ in node.sources.values()] for node_id, node in nodes.items()}
    for node_id, found in sources.items():
        for source in found:
            if source not in nodes:
                raise WorkflowError(f"node {node_id} is linked to node {source}, which does not exist")
    try:
        return list(TopologicalSorter(sources).static_order())
    except CycleError as error:
        raise WorkflowError(f"these nodes depend on each other: {', '.join(sorted(set(error.args[1])))}") from None


def _consumers(nodes: Mapping[str, _Node]) -> dict[str, list[tuple[_Node, int]]]:
    """By node id: who takes its outputs, at which place among the taker's sockets."""
    found: dict[str, list[tuple[_Node, int]]] = {node_id: [] for node_id in nodes}
    for node in nodes.values():
        for place, spec in enumerate(node.sockets):
            if spec.name in node.sources:
                found[node.sources[spec.name][0]].append((node, place))
    return found


def _arrange(nodes: Mapping[str, _Node], order: Sequence[str], blocks: Sequence[list[str]], first: int) -> None:
    """Give every node its column and its height on the canvas, blocks from left to right."""
    consumers = _consumers(nodes)
    for block in blocks:
        members = set(block)
        from_right: dict[str, int] = {}  # a node stands just left of the first that needs it
        for node_id in reversed(order):
            if node_id in members:
                within = [from_right[taker.id] for taker, _ in consumers[node_id] if taker.id in members]
                from_right[node_id] = 1 + max(within, default=-1)
        for node_id in block:
            nodes[node_id].column = first + max(from_right.values()) - from_right[node_id]
        first += 1 + max(from_right.values(), default=-1)
    for node_id, takers in consumers.items():
        for taker, _ in takers:
            if taker.column <= nodes[node_id].column:
                raise WorkflowError(f"groups: the link from node {node_id} to node {taker.id} would run backwards")
    for column in sorted({node.column for node in nodes.values()}, reverse=True):
        _stack([node for node in nodes.values() if node.column == column], consumers)


def _stack(column: Iterable[_Node], consumers: Mapping[str, list[tuple[_Node, int]]]) -> None:
    """Stand the nodes of a column below each other in the order in which the nearest taker takes them."""

    def wanted(node: _Node) -> tuple[float, ...]:
        return min(((taker.column, taker.y, place) for taker, place in consumers[node.id]), default=(math.inf,))

    y = TOP
    for node in sorted(column, key=wanted):
        node.y = y
        y += node.height + GAP


def _links(nodes: Mapping[str, _Node]) -> list[list[Any]]:
    """The links as [id, from node, from output, to node, to input, type]; each is noted in its target."""
    links: list[list[Any]] = []
    for node in nodes.values():
        for place, spec in enumerate(node.sockets):
            if spec.name in node.sources:
                source, slot = node.sources[spec.name]
                node.links[spec.name] = len(links) + 1
                made = _output_types(nodes[source])
                kind = made[slot] if slot < len(made) else "*"
                links.append([len(links) + 1, _id(source), slot, _id(node.id), place, kind])
    return links


def _saved(node: _Node, rank: int, links: Iterable[list[Any]]) -> dict[str, Any]:
    meta = as_dict(node.raw.get("_meta"))
    title = meta.get("title")
    kind = node.raw["class_type"]
    values, named = _widget_values(node)
    saved: dict[str, Any] = {
        "id": _id(node.id),
        "type": kind,
        "pos": [node.x, node.y],
        "size": [WIDTH, node.height],
        "flags": {},
        "order": rank,
        "mode": 0,
        "inputs": [_saved_input(spec, node.links.get(spec.name)) for spec in node.sockets],
        "outputs": _saved_outputs(node, links),
        "properties": {"Node name for S&R": kind} | {key: meta[key] for key in PACK_KEYS if key in meta},
        "widgets_values": values,
        "widgets_values_named": named,
    }
    if title and title != node.info.get("display_name", kind):
        saved["title"] = title
    return saved


def _saved_input(spec: InputSpec, link: int | None) -> dict[str, Any]:
    saved: dict[str, Any] = {"name": spec.name, "type": spec.type, "link": link}
    if spec.optional:
        saved["shape"] = OPTIONAL
    if spec.is_widget:
        saved["widget"] = {"name": spec.name}
    return saved


def _saved_outputs(node: _Node, links: Iterable[list[Any]]) -> list[dict[str, Any]]:
    leaving = [(link[2], link[0]) for link in links if link[1] == _id(node.id)]
    types = _output_types(node)
    types += ["*"] * (max((slot + 1 for slot, _ in leaving), default=0) - len(types))
    names = [*(node.info.get("output_name") or []), *types[len(node.info.get("output_name") or []) :]]
    return [
        {"name": name, "type": kind, "links": [link for start, link in leaving if start == slot]}
        for slot, (name, kind) in enumerate(zip(names, types, strict=False))
    ]


def _output_types(node: _Node) -> list[str]:
    return ["COMBO" if isinstance(kind, list) else str(kind) for kind in node.info.get("output") or []]


def _widget_values(node: _Node) -> tuple[Any, dict[str, Any]]:
    """The values of all widgets by position, and by name; those of an unknown class have names only."""
    given = {name: _unboxed(value) for name, value in node.raw["inputs"].items() if not is_link(value)}
    if not node.info:
        return given, given
    values: list[Any] = []
    named: dict[str, Any] = {}
    for spec in input_specs(node.info):
        if spec.is_widget:
            value = given.get(spec.name, spec.default)
            controls = ["fixed", ""][: spec.control_slots]  # "control after generate", and the filter of a combo
            values += [value, *controls]
            named |= {spec.name: value} | ({"control_after_generate": "fixed"} if controls else {})
    return values, named


def _unboxed(value: Any) -> Any:
    return value["__value__"] if isinstance(value, Mapping) and "__value__" in value else value


def _saved_note(node_id: int, rank: int, text: str) -> dict[str, Any]:
    lines = sum(max(1, math.ceil(len(line) / NOTE_LETTERS)) for line in text.splitlines())
    return {
        "id": node_id,
        "type": "MarkdownNote",
        "pos": [LEFT, TOP],
        "size": [WIDTH, NOTE_HEAD + NOTE_LINE * lines],
        "flags": {},
        "order": rank,
        "mode": 0,
        "inputs": [],
        "outputs": [],
        "title": "Read me",
        "properties": {},
        "widgets_values": [text],
        "color": "#432",
        "bgcolor": "#653",
    }


def _frames(
    nodes: Mapping[str, _Node], groups: Sequence[Group], blocks: Sequence[list[str]]
) -> Iterator[dict[str, Any]]:
    for number, (group, block) in enumerate(zip(groups, blocks, strict=False), 1):
        members = [nodes[node_id] for node_id in block]
        if members:
            left, right = min(node.x for node in members), max(node.x for node in members) + WIDTH
            bottom = max(node.y + node.height for node in members)
            bounding = [left - FRAME, TOP - FRAME_TITLE, right - left + 2 * FRAME, bottom - TOP + FRAME_TITLE + FRAME]
            yield {
                "id": number,
                "title": group.title,
                "bounding": bounding,
                "color": COLORS[(number - 1) % len(COLORS)],
                "font_size": 24,
                "flags": {},
            }


def _id(node_id: str) -> int | str:
    """Whole numbers are saved as such; any other id stays a text."""
    is_number = node_id.isascii() and node_id.isdigit() and len(node_id) <= LONGEST_NUMBER
    return int(node_id) if is_number and str(int(node_id)) == node_id else node_id
