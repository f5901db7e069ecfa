"""Subgraph instances: where a level sits in the workflow, and the values an instance gives to what is inside it."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from .lenient import as_dict, as_dicts, as_list
from .topology import INPUT_NODE, Level, Link, Node, read_level
from .workflow import WorkflowError

PREFIX = re.compile(r"\s*(\d+)\s*:\s*(.+)$")  # of a proxied widget's name
MAX_NODES = 100_000  # of a fully expanded workflow, against definitions that multiply
MAX_DEPTH = 100  # of subgraphs in subgraphs


class Definitions:
    """All subgraph definitions of a workflow; each level is parsed once, however many instances it has."""

    def __init__(self, workflow: Mapping[str, Any], object_info: Mapping[str, Any]):
        self.raw: dict[str, Mapping[str, Any]] = dict(_definitions(workflow))
        self.object_info = object_info
        self._levels: dict[str, Level] = {}

    def level(self, kind: str) -> Level:
        if kind not in self._levels:
            self._levels[kind] = read_level(self.raw[kind], self.object_info, self.raw, is_root=False)
        return self._levels[kind]

    def refuse_bombs(self, workflow: Mapping[str, Any]) -> None:
        """Raises WorkflowError if all instances together are too many nodes; told from the definitions alone."""
        sizes: dict[str, int] = {}
        opened: dict[str, Mapping[str, Any]] = {"": workflow}  # the path down to the present definition
        while opened:
            current, graph = next(reversed(opened.items()))
            kinds = [str(node.get("type")) for node in as_dicts(graph.get("nodes"))]
            inner = [kind for kind in kinds if kind in self.raw]
            unknown = next((kind for kind in inner if kind not in sizes and kind not in opened), None)
            if unknown is not None:
                opened[unknown] = self.raw[unknown]
                continue
            sizes[current] = len(kinds) + sum(sizes.get(kind, 0) for kind in inner)
            if sizes[current] > MAX_NODES:
                raise WorkflowError(f"workflow: its subgraphs expand to more than {MAX_NODES} nodes")
            del opened[current]


def _definitions(workflow: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    pending = [workflow]
    while pending:
        found = as_list(as_dict(pending.pop().get("definitions")).get("subgraphs"))
        for definition in found:
            if not isinstance(definition, Mapping) or "id" not in definition:
                raise WorkflowError("workflow: every subgraph definition must be an object with an `id`")
            pending.append(definition)
            yield str(definition["id"]), definition


@dataclass
class Scope:
    """One level at one place of the workflow: the root, or the inside of one subgraph instance."""

    level: Level
    definitions: Definitions
    path: tuple[str, ...] = ()
    parent: "Scope | None" = None
    instance: Node | None = None
    _children: dict[str, "Scope"] = field(default_factory=dict)

    def execution_id(self, node: Node) -> str:
        return ":".join((*self.path, node.id))

    def is_instance(self, node: Node) -> bool:
        return node.type in self.definitions.raw

    def child(self, node: Node) -> "Scope":
        """The inside of an instance on this level. Raises WorkflowError if the subgraph contains itself."""
        if node.id not in self._children:
            where = f"node {self.execution_id(node)}: subgraph {node.title!r}"
            if len(self.path) >= MAX_DEPTH:
                raise WorkflowError(f"{where} is nested more than {MAX_DEPTH} deep")
            scope: Scope | None = self
            while scope is not None and scope.instance is not None:
                if scope.instance.type == node.type:
                    raise WorkflowError(f"{where} contains itself")
                scope = scope.parent
            level = self.definitions.level(node.type)
            self._children[node.id] = Scope(level, self.definitions, (*self.path, node.id), self, node)
        return self._children[node.id]

    def slot_links(self, slot: int) -> list[Link]:
        """The links from one input of the subgraph to the nodes inside, in the order the definition lists them."""
        definition = as_dict(self.level.definition)
        listed = [str(link) for link in as_list(as_dicts(definition.get("inputs"))[slot].get("linkIds"))]
        links = [link for link in self.level.leaving.get(INPUT_NODE, []) if link.origin_slot == slot]
        return sorted(links, key=lambda link: listed.index(link.id) if link.id in listed else len(listed))

    def promoted_source(self, slot: int) -> tuple[Node, int] | None:
        """The inner (node, input index) whose widget an input of the subgraph shows; None if it shows none."""
        for link in self.slot_links(slot):
            node = self.level.nodes.get(link.target)
            slots = node.inputs if node is not None else []
            index = next((i for i, item in enumerate(slots) if item.link is link), None)
            if node is not None and index is not None and self._shows_widget(node, index):
                return node, index
        return None

    def _shows_widget(self, node: Node, index: int) -> bool:
        if self.is_instance(node):
            return self.child(node).promoted_source(index) is not None
        return node.inputs[index].is_widget and node.inputs[index].name in node.widgets

    @cached_property
    def promoted(self) -> dict[int, Any]:
        """The value of each input of this instance that shows a widget, by input index.

        The instance's own `widgets_values` in input order; what the list lacks is the inner widget's own value.
        """
        assert self.instance is not None
        raw = self.instance.raw.get("widgets_values")
        values, named = as_list(raw), as_dict(raw) or as_dict(self.instance.raw.get("widgets_values_named"))
        found: dict[int, Any] = {}
        for index, slot in enumerate(self.instance.inputs):
            source = self.promoted_source(index)
            if source is not None:
                place = len(found)
                own = self._own_value(*source)
                found[index] = values[place] if place < len(values) else named.get(slot.name, own)
        return found | self._proxies[0]

    def _own_value(self, node: Node, index: int) -> Any:
        return self.child(node).promoted.get(index) if self.is_instance(node) else node.widgets[node.inputs[index].name]

    def override(self, node_id: str, name: str, source: str | None = None) -> tuple[Any] | None:
        """The (value,) that `proxyWidgets` of the enclosing instances give to an input inside, the outermost one's.

        `source` is the innermost node whose widget is meant, where the name alone would not say.
        """
        keys = ((node_id, name, source), (node_id, name, None))
        overrides = self._proxies[1] if self.instance is not None else {}
        key = next((key for key in keys if key in overrides), None)
        if key is None or self.parent is None or self.instance is None:
            return None
        return self.parent.override(self.instance.id, name, source or node_id) or (overrides[key],)

    @cached_property
    def _proxies(self) -> tuple[dict[int, Any], dict[tuple[str, str, str | None], Any]]:
        """What an older file's `proxyWidgets` [[inner node id, widget name], ...] give to the instance's own inputs,
        and to inputs inside, by (node id, input name, source)."""
        assert self.instance is not None
        entries = as_list(as_dict(self.instance.raw.get("properties")).get("proxyWidgets"))
        values = as_list(self.instance.raw.get("widgets_values"))
        by_slot: dict[int, Any] = {}
        by_input: dict[tuple[str, str, str | None], Any] = {}
        for place, entry in enumerate(entries):
            if not isinstance(entry, list) or len(entry) < 2:
                continue
            node_id, name = str(entry[0]), str(entry[1])
            index = self._slot_that_shows(node_id, name)
            if index is not None:
                by_slot |= {index: values[place]} if place < len(values) else {}
                continue
            source = str(entry[2]) if len(entry) > 2 else None
            for key, own in self._proxied_inputs(node_id, name, source):
                value = values[place] if place < len(values) else own
                by_input |= {key: value} if value is not None else {}
        return by_slot, by_input

    def _slot_that_shows(self, node_id: str, name: str) -> int | None:
        """The index of the instance's input that shows a proxied widget; node "-1" means the input itself."""
        assert self.instance is not None
        for index, slot in enumerate(self.instance.inputs):
            source = self.promoted_source(index)
            if node_id == "-1" and slot.name == name:
                return index
            if source and (source[0].id, source[0].inputs[source[1]].name) == (node_id, name):
                return index
        return None

    def _proxied_inputs(
        self, node_id: str, name: str, source: str | None
    ) -> Iterator[tuple[tuple[str, str, str | None], Any]]:
        """The keys of the inputs that one entry means, each with the widget's own value."""
        node = self.level.nodes.get(node_id)
        if node is not None and node.type == "PrimitiveNode":
            for target, index in linked_inputs(self.level, node):
                slot = target.inputs[index].name
                yield (target.id, slot, None), next(iter(as_list(node.raw.get("widgets_values"))), None)
        elif node is not None:
            while name not in node.widgets and (match := PREFIX.match(name)):
                source, name = match.groups()  # "3: steps": the widget `steps` of node 3, further in
            is_inside = self.is_instance(node) and all(slot.name != name for slot in node.inputs)
            yield (node_id, name, source if is_inside else None), node.widgets.get(name)


def linked_inputs(level: Level, node: Node) -> Iterator[tuple[Node, int]]:
    """The (node, input index) pairs on the same level that a node's outputs lead to, in order of link ids."""
    for link in level.leaving.get(node.id, []):
        target = level.nodes.get(link.target)
        for index, slot in enumerate(target.inputs if target else []):
            if target is not None and slot.link is link:
                yield target, index
