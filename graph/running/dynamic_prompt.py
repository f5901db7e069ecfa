"""A prompt that may grow while it runs: the original nodes and those that a node expanded into."""

from typing import Any


class DynamicPrompt:
    """What a node sees as its hidden DYNPROMPT input; the methods have ComfyUI's names."""

    def __init__(self, original: dict[str, Any]):
        self.original = original
        self.ephemeral: dict[str, Any] = {}
        self._parents: dict[str, str] = {}
        self._display: dict[str, str] = {}

    def get_node(self, node_id: str) -> dict[str, Any]:
        """Raises KeyError for an unknown id."""
        node: dict[str, Any] = self.ephemeral.get(node_id) or self.original[node_id]
        return node

    def has_node(self, node_id: str) -> bool:
        return node_id in self.ephemeral or node_id in self.original

    def all_node_ids(self) -> set[str]:
        return {*self.original, *self.ephemeral}

    def get_original_prompt(self) -> dict[str, Any]:
        return self.original

    def add_ephemeral_node(self, node_id: str, node: dict[str, Any], parent_id: str, display_id: str) -> None:
        if node_id in self.original:
            raise ValueError(f"node {parent_id} expands into node {node_id}, which the workflow already has")
        self.ephemeral[node_id] = node
        self._parents[node_id] = parent_id
        self._display[node_id] = display_id

    def get_real_node_id(self, node_id: str) -> str:
        """The node of the original prompt that an ephemeral one comes from."""
        while node_id in self._parents:
            node_id = self._parents[node_id]
        return node_id

    def get_parent_node_id(self, node_id: str) -> str | None:
        return self._parents.get(node_id)

    def get_display_node_id(self, node_id: str) -> str:
        """The node on which a frontend shows what happens to this one."""
        while node_id in self._display and self._display[node_id] != node_id:
            node_id = self._display[node_id]
        return node_id
