"""Which node may run next. A node waits for those it is linked to; links can be added while the prompt runs."""

import heapq
from collections.abc import Callable
from typing import Any

from ..node_class import Classes, input_spec, is_async, is_link, is_output
from .dynamic_prompt import DynamicPrompt


class ExecutionOrder:
    """The nodes that are still to run. Ready output nodes and async ones go first, then what outputs wait for."""

    def __init__(self, dynprompt: DynamicPrompt, mapping: Classes, is_done: Callable[[str], bool]):
        self.dynprompt = dynprompt
        self.mapping = mapping
        self.is_done = is_done
        self.pending: dict[str, int] = {}  # node id -> rank of arrival
        self.waits_for: dict[str, set[str]] = {}
        self.waited_by: dict[str, dict[str, None]] = {}
        self._fresh: list[str] = []
        self._ready: list[tuple[int, int, str]] = []

    def __bool__(self) -> bool:
        return bool(self.pending)

    def add(self, node_id: str) -> None:
        """Let a node run, after all it depends on; lazy inputs do not count until the node asks for them."""
        todo, links = [node_id], []
        while todo:
            current = todo.pop()
            if current in self.pending:
                continue
            self.pending[current] = len(self.pending)
            self.waits_for[current], self.waited_by[current] = set(), {}
            self._fresh.append(current)
            for source in self._eager_sources(current):
                if self.dynprompt.has_node(source) and not self.is_done(source):
                    todo.append(source)
                    links.append((source, current))
        for source, target in links:
            self._link(source, target)

    def _eager_sources(self, node_id: str) -> list[str]:
        node = self.dynprompt.get_node(node_id)
        types = self.mapping[node["class_type"]].INPUT_TYPES()
        links = {name: value for name, value in node["inputs"].items() if is_link(value)}
        return [value[0] for name, value in links.items() if not input_spec(types, name)[2].get("lazy")]

    def add_link(self, source: str, target: str) -> None:
        """Make a pending node wait for another one too."""
        if not self.is_done(source):
            self.add(source)
            self._link(source, target)

    def _link(self, source: str, target: str) -> None:
        self.waits_for[target].add(source)
        self.waited_by[source][target] = None

    def next(self) -> str | None:
        """The id of the node to run now; None if all that are left wait for each other."""
        for node_id in self._fresh:
            if not self.waits_for[node_id]:
                heapq.heappush(self._ready, (self._urgency(node_id), self.pending[node_id], node_id))
        self._fresh.clear()
        return heapq.heappop(self._ready)[2] if self._ready else None

    def postpone(self, node_id: str) -> None:
        """Keep a node that `next` gave: it has more to wait for, or more to do later."""
        self._fresh.append(node_id)

    def finish(self, node_id: str) -> None:
        del self.pending[node_id], self.waits_for[node_id]
        for target in self.waited_by.pop(node_id):
            self.waits_for[target].discard(node_id)
            self._fresh.append(target)

    def _urgency(self, node_id: str) -> int:
        if self._is(node_id, is_output) or self._is(node_id, is_async):
            return 0
        targets = self.waited_by[node_id]
        if any(self._is(target, is_output) for target in targets):
            return 1
        return 2 if any(self._is(far, is_output) for near in targets for far in self.waited_by[near]) else 3

    def _is(self, node_id: str, predicate: Callable[[Any], bool]) -> bool:
        return predicate(self.mapping[self.dynprompt.get_node(node_id)["class_type"]])

    def cycle(self) -> list[str]:
        """The ids of nodes that wait for each other in a circle, where `next` found none."""
        path: dict[str, None] = {}
        node_id = next(iter(self.pending))
        while node_id not in path:
            path[node_id] = None
            node_id = min(self.waits_for[node_id], key=lambda n: self.pending[n])
        members = list(path)
        return members[members.index(node_id) :]
