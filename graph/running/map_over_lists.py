"""Call a node once per item of its input lists, and join what it returns (ComfyUI's list semantics)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..node_class import is_blocker
from ..settle import settle

Inputs = dict[str, list[Any]]  # every input is a list; most have one item


class ExecutionBlocker:
    """In place of a value: nodes that would take it do not run. A message makes it an error that is shown."""

    def __init__(self, message: str | None):
        self.message = message


def call(
    owner: Any,
    function: str,
    inputs: Inputs,
    before: Callable[[], None] = lambda: None,
    block: Callable[[Any], Any] = lambda blocker: blocker,
) -> list[Any]:
    """The results of owner.function, one per call: one call per index of the longest list (shorter ones repeat
    their last item), or one with whole lists if owner.INPUT_IS_LIST.

    `before` is called before each. A blocked call is replaced by `block(blocker)`.
    """
    results = []
    for arguments in _calls(owner, inputs):
        before()
        blocker = _blocker(owner, arguments)
        result = settle(getattr(owner, function)(**arguments)) if blocker is None else block(blocker)
        results.append(result)
    return results


def _calls(owner: Any, inputs: Inputs) -> list[dict[str, Any]]:
    if getattr(owner, "INPUT_IS_LIST", False):
        return [dict(inputs)]
    longest = max(map(len, inputs.values()), default=0)
    if not longest:
        return [{}]
    return [{name: items[min(i, len(items) - 1)] for name, items in inputs.items()} for i in range(longest)]


def _blocker(owner: Any, arguments: dict[str, Any]) -> Any:
    is_list = getattr(owner, "INPUT_IS_LIST", False)
    values = [item for items in arguments.values() for item in items] if is_list else arguments.values()
    return next((value for value in values if is_blocker(value)), None)


@dataclass
class Returned:
    """What the calls of one node returned, taken apart."""

    rows: list[tuple[dict[str, Any] | None, Any]] = field(default_factory=list)
    """(graph to expand into or None, result) of each call that has one."""
    ui: dict[str, list[Any]] = field(default_factory=dict)

    @property
    def expands(self) -> bool:
        return any(graph is not None for graph, _ in self.rows)


def take_apart(results: list[Any], node_class: Any) -> Returned:
    """Split returned tuples and {"ui", "result", "expand"} dicts; `ui` lists of several calls are concatenated."""
    returned = Returned()
    ui = [result["ui"] for result in results if isinstance(result, dict) and "ui" in result]
    if ui:
        returned.ui = {key: [item for part in ui for item in part[key]] for key in ui[0]}
    for result in results:
        graph = result.get("expand") if isinstance(result, dict) else None
        if isinstance(result, dict):
            if graph is None and "result" not in result:
                continue
            result = result.get("result")
        returned.rows.append((graph, _row(result, node_class)))
    return returned


def _row(result: Any, node_class: Any) -> Any:
    types = node_class.RETURN_TYPES
    if is_blocker(result):
        return (result,) * len(types)
    if result is None and not types:
        return ()
    if not isinstance(result, tuple | list):
        name = f"{node_class.__name__}.{node_class.FUNCTION}"
        raise TypeError(f"{name} must return a tuple of {len(types)} outputs, not {type(result).__name__}")
    return result


def join(rows: Sequence[Sequence[Any]], node_class: Any) -> list[list[Any]]:
    """The outputs of one node, each a list over its calls; an output marked in OUTPUT_IS_LIST is spliced."""
    if not rows:
        return []
    is_list = getattr(node_class, "OUTPUT_IS_LIST", [False] * len(rows[0]))
    return [
        [item for row in rows for item in ([row[i]] if not spliced or is_blocker(row[i]) else row[i])]
        for i, spliced in zip(range(len(rows[0])), is_list, strict=False)
    ]
