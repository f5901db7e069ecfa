"""Subgraph instances: where a level sits in the workflow, and the values an instance gives to what is inside it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from .topology import INPUT_NODE, Level, Link, Node, read_level
from .workflow import WorkflowError

MAX_NODES = 100_000  # of a fully expanded workflow, against definitions that multiply


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


def _definitions(workflow: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    pending = [workflow]
    while pending:
        found = (pending.pop().get("definitions") or {}).get("subgraphs") or []
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
            scope: Scope | None = self
            while scope is not None and scope.instance is not None:
                if scope.instance.type == node.type:
                    raise WorkflowError(f"node {self.execution_id(node)}: subgraph {node.title!r} contains itself")
                scope = scope.parent
            level = self.definitions.level(node.type)
            self._children[node.id] = Scope(level, self.definitions, (*self.path, node.id), self, node)
        return self._children[node.id]

    def slot_links(self, slot: int) -> list[Link]:
        """The links from one input of the subgraph to the nodes inside, in the order the definition lists them."""
        definition = self.level.definition or {}
        listed = [str(link) for link in definition["inputs"][slot].get("linkIds") or []]
        links = [link for link in self.level.leaving.get(INPUT_NODE, []) if link.origin_slot == slot]
        return sorted(links, key=lambda link: listed.index(link.id) if link.id in listed else len(listed))

    def promoted_source(self, slot: int) -> tuple[Node, int] | None:
        """The inner (node, input index) whose widget an input of the subgraph shows; None if it shows none."""
        for link in self.slot_links(slot):
            node = self.level.nodes.get(link.target)
            if node is None or link.target_slot is None:
                continue
            index = next((i for i, item in enumerate(node.inputs) if item.link is link), None)
            if index is not None and self._shows_widget(node, index):
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
        values = iter(raw if isinstance(raw, list) else [])
        named = raw if isinstance(raw, Mapping) else self.instance.raw.get("widgets_values_named") or {}
        found: dict[int, Any] = {}
        for index, slot in enumerate(self.instance.inputs):
            source = self.promoted_source(index)
            if source is None:
                continue
            fallback = named.get(slot.name, self._own_value(*source)) if not isinstance(raw, list) else None
            found[index] = next(values, fallback if not isinstance(raw, list) else self._own_value(*source))
        return found | self._proxies[0]

    def _own_value(self, node: Node, index: int) -> Any:
        return self.child(node).promoted.get(index) if self.is_instance(node) else node.widgets[node.inputs[index].name]

    @property
    def overrides(self) -> dict[tuple[str, str], Any]:
        """Values that an older file's `proxyWidgets` give to inner inputs, by (inner node id, input name)."""
        return self._proxies[1] if self.instance is not None else {}

    @cached_property
    def _proxies(self) -> tuple[dict[int, Any], dict[tuple[str, str], Any]]:
        assert self.instance is not None
        properties = self.instance.raw.get("properties") or {}
        entries = properties.get("proxyWidgets") if isinstance(properties, Mapping) else None
        values = self.instance.raw.get("widgets_values")
        by_slot: dict[int, Any] = {}
        by_input: dict[tuple[str, str], Any] = {}
        pairs = zip(entries or [], values if isinstance(values, list) else [], strict=False)
        for entry, value in pairs:
            if isinstance(entry, list) and len(entry) >= 2:
                self._place(str(entry[0]), str(entry[1]), value, by_slot, by_input)
        return by_slot, by_input

    def _place(
        self, node_id: str, name: str, value: Any, by_slot: dict[int, Any], by_input: dict[tuple[str, str], Any]
    ) -> None:
        """Give one proxied value to the instance's input that shows that widget, or else to the widget itself."""
        assert self.instance is not None
        for index, slot in enumerate(self.instance.inputs):
            source = self.promoted_source(index)
            if source and (source[0].id, source[0].inputs[source[1]].name) == (node_id, name):
                by_slot[index] = value
                return
            if node_id == "-1" and slot.name == name:
                by_slot[index] = value
                return
        node = self.level.nodes.get(node_id)
        if node is None:
            return
        if node.type == "PrimitiveNode":
            for target, index in linked_inputs(self.level, node):
                by_input[target.id, target.inputs[index].name] = value
        else:
            by_input[node_id, self._inner_name(node, name)] = value

    def _inner_name(self, node: Node, name: str) -> str:
        """The input of a nested instance may be meant by the name of the widget that it shows."""
        if self.is_instance(node) and all(slot.name != name for slot in node.inputs):
            inner = self.child(node)
            for index, slot in enumerate(node.inputs):
                source = inner.promoted_source(index)
                if source and source[0].inputs[source[1]].name == name:
                    return slot.name
        return name


def linked_inputs(level: Level, node: Node) -> Iterator[tuple[Node, int]]:
    """The (node, input index) pairs on the same level that a node's outputs lead to, in order of link ids."""
    for link in level.leaving.get(node.id, []):
        target = level.nodes.get(link.target)
        for index, slot in enumerate(target.inputs if target else []):
            if target is not None and slot.link is link:
                yield target, index
