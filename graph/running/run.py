"""One prompt on its way through its nodes."""

import threading
from collections.abc import Iterable, Sequence
from typing import Any

from ..node_class import Classes, hidden_inputs, input_spec, is_link, is_output
from .cache import Cache, Entry
from .dynamic_prompt import DynamicPrompt
from .events import Events
from .interrupted import Interrupted
from .map_over_lists import ExecutionBlocker, Inputs, Returned, call, join, take_apart
from .order import ExecutionOrder
from .signature import PromptSignatures

SHOWN = 1000  # characters of one input in an error report


class NodeFailed(Exception):
    """The node at which a run ended, and what was raised there."""

    def __init__(self, node_id: str, error: BaseException, is_interrupt: bool, inputs: dict[str, list[Any]]):
        super().__init__(node_id)
        self.node_id = node_id
        self.error = error
        self.is_interrupt = is_interrupt
        self.inputs = inputs


class DependencyCycleError(Exception):
    """Nodes that wait for each other; validation finds those of a prompt, this is for expansions."""


class PromptRun:
    """The state of one run; `execute` is its loop, the rest is what happens to one node."""

    def __init__(
        self,
        mapping: Classes,
        cache: Cache,
        dynprompt: DynamicPrompt,
        events: Events,
        extra_data: dict[str, Any],
        interrupt: threading.Event | None,
    ):
        self.mapping = mapping
        self.cache = cache
        self.dynprompt = dynprompt
        self.events = events
        self.extra_data = extra_data
        self.interrupt = interrupt
        self.signatures = PromptSignatures(cache.signatures, dynprompt, mapping)
        self.order = ExecutionOrder(dynprompt, mapping, self.is_done)
        self.entries: dict[str, Entry] = {}  # of this run, by node id
        self.expansions: dict[str, list[tuple[bool, Any]]] = {}
        self.inputs: Inputs = {}  # of the node that runs now
        self.executed: dict[str, None] = {}
        self.ui: dict[str, dict[str, Any]] = {}
        self.meta: dict[str, dict[str, Any]] = {}

    def prepare(self) -> None:
        self.signatures.add(self.dynprompt.original)
        self.cache.enter(self.dynprompt, self.signatures)

    def entry(self, node_id: str) -> Entry | None:
        if node_id in self.entries:
            return self.entries[node_id]
        return self.cache.entries.get(self.signatures.numbers.get(node_id, -1))

    def is_done(self, node_id: str) -> bool:
        return self.entry(node_id) is not None

    def recall_cached(self) -> list[str]:
        """The nodes that are in the cache. What they showed is in the result, also where nothing asks for them."""
        entries = {node_id: self.entry(node_id) for node_id in self.dynprompt.original}
        for node_id, entry in entries.items():
            if entry is not None and entry.ui:
                self._note(node_id, entry.ui)
        return [node_id for node_id, entry in entries.items() if entry is not None]

    def execute(self, outputs: Sequence[str]) -> None:
        """Run all that the outputs need. Raises NodeFailed."""
        for output in outputs:
            self.order.add(output)
        while self.order:
            node_id = self.order.next()
            if node_id is None:
                raise self._cycle()
            if self._attempt(node_id):
                self.order.finish(node_id)
            else:
                self.order.postpone(node_id)

    def _cycle(self) -> NodeFailed:
        cycle = self.order.cycle()
        blamed = next((node_id for node_id in cycle if node_id in self.dynprompt.ephemeral), cycle[0])
        return NodeFailed(blamed, DependencyCycleError("Dependency cycle detected"), False, {})

    def _attempt(self, node_id: str) -> bool:
        self.inputs = {}
        try:
            return self._step(node_id)
        except BaseException as error:
            is_set = self.interrupt is not None and self.interrupt.is_set()
            if isinstance(error, KeyboardInterrupt | SystemExit) and not is_set:
                raise
            is_interrupt = is_set or not isinstance(error, Exception)
            shown = {name: [_shown(value) for value in values] for name, values in self.inputs.items()}
            raise NodeFailed(node_id, error, is_interrupt, shown) from error

    def _step(self, node_id: str) -> bool:
        """Take one node as far as it can go now; True if that is the end. False: it waits for other nodes."""
        self._check_interrupt()
        known = self.entry(node_id)
        if known is not None:
            self._show(node_id, known.ui)
            self.events.finish(node_id)
            return True
        node_class = self.mapping[self.dynprompt.get_node(node_id)["class_type"]]
        if node_id in self.expansions:
            outputs = join([self._row(node_id, *row) for row in self.expansions.pop(node_id)], node_class)
            self._store(node_id, outputs, self.ui.get(node_id, {}))
            return True
        returned = self._call(node_id, node_class)
        if returned is None:
            return False
        self._show(node_id, returned.ui)
        if returned.expands:
            self._expand(node_id, returned.rows)
            return False
        self._store(node_id, join([row for _, row in returned.rows], node_class), returned.ui)
        return True

    def _check_interrupt(self) -> None:
        if self.interrupt is not None and self.interrupt.is_set():
            raise Interrupted("interrupted")

    def _call(self, node_id: str, node_class: Any) -> Returned | None:
        """Call the node's function; None if the node wants lazy inputs first."""
        self.events.start(node_id)
        self.inputs, missing = self._gather(node_id, node_class)
        self.events.executing(node_id)
        instance = self.cache.instance(node_id, self.dynprompt.get_node(node_id)["class_type"], node_class)
        if hasattr(instance, "check_lazy_status"):
            answers = call(instance, "check_lazy_status", self.inputs, self._check_interrupt)
            wanted = [name for answer in answers if isinstance(answer, list) for name in answer]
            wanted = [name for name in wanted if name not in self.inputs or name in missing]
            for name in dict.fromkeys(wanted):
                self._want(node_id, name)
            if wanted:
                return None
        blocked = self._block(node_id)
        return take_apart(call(instance, node_class.FUNCTION, self.inputs, self._check_interrupt, blocked), node_class)

    def _gather(self, node_id: str, node_class: Any) -> tuple[Inputs, set[str]]:
        """The inputs of a node, each a list, and the names of those whose node has not run (they are None)."""
        types = node_class.INPUT_TYPES()
        inputs: Inputs = {}
        missing = set()
        for name, value in self.dynprompt.get_node(node_id)["inputs"].items():
            _, category, options = input_spec(types, name)
            if is_link(value) and not options.get("rawLink"):
                entry = self.entry(value[0])
                if entry is None or value[1] >= len(entry.outputs):
                    missing.add(name)
                    inputs[name] = [None]
                else:
                    inputs[name] = entry.outputs[value[1]]
            elif category is not None:
                inputs[name] = [value]
        hidden = hidden_inputs(types, node_id, self.dynprompt.original, self.dynprompt, self.extra_data)
        return inputs | {name: [value] for name, value in hidden.items()}, missing

    def _want(self, node_id: str, name: str) -> None:
        link = self.dynprompt.get_node(node_id)["inputs"].get(name)
        if not is_link(link):
            raise ValueError(f"node {node_id} asks for its input {name}, but nothing is linked to it")
        self.order.add_link(link[0], node_id)

    def _block(self, node_id: str) -> Any:
        """What stands in for a call with a blocked input. A blocker's message is shown once, as an error."""

        def block(blocker: Any) -> Any:
            if blocker.message is None:
                return blocker
            data = {
                "prompt_id": self.events.prompt_id,
                "node_id": node_id,
                "node_type": self.dynprompt.get_node(node_id)["class_type"],
                "executed": list(self.executed),
                "exception_message": f"Execution Blocked: {blocker.message}",
                "exception_type": "ExecutionBlocked",
                "traceback": [],
                "current_inputs": [],
                "current_outputs": [],
            }
            self.events.send("execution_error", data)
            return ExecutionBlocker(None)

        return block

    def _show(self, node_id: str, ui: dict[str, Any]) -> None:
        if ui:
            self._note(node_id, ui)
            self.events.executed(node_id, ui)

    def _note(self, node_id: str, ui: dict[str, Any]) -> None:
        self.ui[node_id] = ui
        self.meta[node_id] = {
            "node_id": node_id,
            "display_node": self.dynprompt.get_display_node_id(node_id),
            "parent_node": self.dynprompt.get_parent_node_id(node_id),
            "real_node_id": self.dynprompt.get_real_node_id(node_id),
        }

    def _store(self, node_id: str, outputs: list[list[Any]], ui: dict[str, Any]) -> None:
        self.entries[node_id] = Entry(outputs, ui)
        number = self.signatures.numbers[node_id]
        if number in self.signatures.lasting:
            self.cache.entries[number] = self.entries[node_id]
        self.executed[node_id] = None
        self.events.finish(node_id)

    def _expand(self, node_id: str, rows: list[tuple[dict[str, Any] | None, Any]]) -> None:
        """Add the nodes that a node expanded into; it waits for those that its result is linked to."""
        self.expansions[node_id] = [(graph is not None, result) for graph, result in rows]
        added = {key: node for graph, _ in rows for key, node in (graph or {}).items()}
        for key, node in added.items():
            self.dynprompt.add_ephemeral_node(key, node, node_id, node.get("override_display_id", node_id))
        self._remember_growth(node_id, added)
        for key, node in added.items():
            if is_output(self.mapping[node["class_type"]]):
                self.order.add(key)
        for graph, result in rows:
            for value in result if graph is not None else ():
                if is_link(value):
                    self.order.add_link(value[0], node_id)

    def _remember_growth(self, node_id: str, added: dict[str, Any]) -> None:
        self.signatures.add(added)
        real_id = self.dynprompt.get_real_node_id(node_id)
        owner = (real_id, self.dynprompt.original[real_id]["class_type"])
        numbers: Iterable[int] = (self.signatures.numbers[key] for key in added)
        self.cache.grow(owner, numbers, ((key, node["class_type"]) for key, node in added.items()))

    def _row(self, node_id: str, is_expansion: bool, result: Any) -> Any:
        """The result of one call, with links into the expansion replaced by what came out there."""
        if not is_expansion:
            return result
        row: list[Any] = []
        for value in result:
            if is_link(value):
                entry = self.entry(value[0])
                if entry is None:
                    raise ValueError(f"node {node_id} expands to a result linked to node {value[0]}, which did not run")
                row += entry.outputs[value[1]]
            else:
                row.append(value)
        return row


def _shown(value: Any) -> Any:
    """A value as an error report shows it: short, and never an error of its own."""
    if value is None or isinstance(value, int | float):
        return value
    try:
        text = str(value)
    except Exception:
        text = f"<{type(value).__name__}>"
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}... ({len(text)} characters)"
