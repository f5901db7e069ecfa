"""Cache keys: what a node's outputs depend on, so that equal keys mean equal outputs.

ComfyUI lists all ancestors in each key; here a key names its parents by their own keys' numbers, which says the same
in a fixed amount of work for each node.
"""

import itertools
import logging
import math
from collections.abc import Hashable, Iterable
from typing import Any

from ..node_class import Classes, hidden_inputs, input_spec, is_link
from .dynamic_prompt import DynamicPrompt
from .map_over_lists import call

log = logging.getLogger(__name__)


class Signatures:
    """Numbers for keys, the same number for the same key in every prompt; kept only as long as a prompt uses them."""

    def __init__(self) -> None:
        self._numbers: dict[Hashable, int] = {}
        self._counter = itertools.count()

    def number(self, key: Hashable) -> int:
        return self._numbers.setdefault(key, next(self._counter))

    def keep(self, used: Iterable[int]) -> None:
        used = set(used)
        self._numbers = {key: number for key, number in self._numbers.items() if number in used}

    def new(self) -> int:
        """A number that no key will ever have again: never a hit."""
        return next(self._counter)


class PromptSignatures:
    """The number of every node of one prompt. IS_CHANGED is asked once for each node."""

    def __init__(self, signatures: Signatures, dynprompt: DynamicPrompt, mapping: Classes):
        self.signatures = signatures
        self.dynprompt = dynprompt
        self.mapping = mapping
        self.numbers: dict[str, int] = {}
        self.lasting: set[int] = set()
        """The numbers that a later prompt can meet again."""

    def add(self, node_ids: Iterable[str]) -> None:
        """Number these nodes and all they depend on, parents first; a node in a cycle never hits."""
        pending = list(node_ids)
        opened: set[str] = set()
        while pending:
            node_id = pending[-1]
            missing = [] if node_id in opened else [n for n in self._parents(node_id) if n not in self.numbers]
            opened.add(node_id)
            if missing:
                pending += missing
                continue
            pending.pop()
            if node_id not in self.numbers:
                self.numbers[node_id] = self._number(node_id)

    def _inputs(self, node_id: str) -> dict[str, Any]:
        """Empty for a node that is broken or missing: beside valid outputs, a prompt may hold such nodes too."""
        inputs = self.dynprompt.get_node(node_id).get("inputs") if self.dynprompt.has_node(node_id) else None
        return inputs if isinstance(inputs, dict) else {}

    def _parents(self, node_id: str) -> list[str]:
        return [value[0] for value in self._inputs(node_id).values() if is_link(value)]

    def _number(self, node_id: str) -> int:
        if not self.dynprompt.has_node(node_id):
            return self.signatures.new()
        node = self.dynprompt.get_node(node_id)
        node_class = self.mapping.get(node["class_type"])
        if node_class is None:
            return self.signatures.new()
        try:
            identity = self._identity(node_id, node_class)
            key = (node["class_type"], identity, freeze(self._is_changed(node_id, node_class)))
            inputs = tuple((name, self._input(value)) for name, value in sorted(self._inputs(node_id).items()))
        except (Unequal, RecursionError):
            return self.signatures.new()
        number = self.signatures.number((key, inputs))
        self.lasting.add(number)
        return number

    def _identity(self, node_id: str, node_class: Any) -> str | None:
        """The node's own id where it matters: a node told its id, or one whose outputs are not to be shared."""
        types = node_class.INPUT_TYPES()
        has_id = "UNIQUE_ID" in (types.get("hidden") or {}).values()
        return node_id if has_id or getattr(node_class, "NOT_IDEMPOTENT", False) else None

    def _input(self, value: Any) -> Hashable:
        if not is_link(value):
            return freeze(value)
        if value[0] not in self.numbers:
            raise Unequal  # a cycle
        return ("link", self.numbers[value[0]], value[1])

    def _is_changed(self, node_id: str, node_class: Any) -> Any:
        """What IS_CHANGED says of the constants (links are None); NaN if it raises."""
        if not hasattr(node_class, "IS_CHANGED"):
            return False
        types = node_class.INPUT_TYPES()
        inputs = self._inputs(node_id)
        known = {name: value for name, value in inputs.items() if is_link(value) or input_spec(types, name)[1]}
        values = {name: [None if is_link(value) else value] for name, value in known.items()}
        hidden = hidden_inputs(types, node_id)
        try:
            return call(node_class, "IS_CHANGED", values | {name: [value] for name, value in hidden.items()})
        except Exception as error:
            log.warning("node %s: IS_CHANGED raised %s: %s", node_id, type(error).__name__, error)
            return math.nan


class Unequal(Exception):
    """A value that equals nothing, not even itself tomorrow."""


def freeze(value: Any) -> Hashable:
    """A hashable stand-in that is equal for equal JSON-like values. Raises Unequal for NaN and for live objects."""
    if value is None or isinstance(value, str | bytes | int | float):
        if value != value:
            raise Unequal
        return value
    if isinstance(value, dict):
        return ("dict", frozenset((freeze(key), freeze(item)) for key, item in value.items()))
    if isinstance(value, list | tuple):
        return ("list", *map(freeze, value))
    raise Unequal
