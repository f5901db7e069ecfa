"""What outlives a prompt: outputs by the number of their signature, and the nodes' instances."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .dynamic_prompt import DynamicPrompt
from .signature import PromptSignatures, Signatures


@dataclass(frozen=True)
class Entry:
    """All that is kept of a node that ran."""

    outputs: list[list[Any]]
    ui: dict[str, Any]


class Cache:
    """Holds what the last prompt used and no more (ComfyUI's classic mode)."""

    def __init__(self) -> None:
        self.signatures = Signatures()
        self.entries: dict[int, Entry] = {}
        self.instances: dict[tuple[str, str], Any] = {}
        self._grown: dict[tuple[str, str], tuple[set[int], set[tuple[str, str]]]] = {}

    def enter(self, dynprompt: DynamicPrompt, signatures: PromptSignatures) -> None:
        """Forget all that this prompt cannot use. What a node expanded into last time stays while that node does."""
        owners = {(node_id, node.get("class_type")) for node_id, node in dynprompt.original.items()}
        numbers, instances = set(signatures.lasting), set(owners)
        self._grown = {owner: grown for owner, grown in self._grown.items() if owner in owners}
        for grown_numbers, grown_instances in self._grown.values():
            numbers |= grown_numbers
            instances |= grown_instances
        self.signatures.keep(numbers)
        self.entries = {number: entry for number, entry in self.entries.items() if number in numbers}
        self.instances = {key: instance for key, instance in self.instances.items() if key in instances}

    def grow(self, owner: tuple[str, str], numbers: Iterable[int], nodes: Iterable[tuple[str, str]]) -> None:
        """Note what a node of the prompt (id, class) has expanded into."""
        known_numbers, known_nodes = self._grown.setdefault(owner, (set(), set()))
        known_numbers.update(numbers)
        known_nodes.update(nodes)

    def instance(self, node_id: str, class_type: str, node_class: Any) -> Any:
        """The node object of this id and class, made when it is first needed."""
        key = (node_id, class_type)
        if key not in self.instances:
            self.instances[key] = node_class()
        return self.instances[key]
