"""UI format -> API format: what the official frontend queues for a saved workflow (its graphToPrompt)."""

import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from .choices import choose
from .lenient import as_dict
from .resolve import Origin, Value, resolve
from .subgraphs import Definitions, Scope, linked_inputs
from .topology import BYPASS, NEVER, VIRTUAL, Node, nameless_values, read_level
from .widgets import declared_specs
from .workflow import check, is_prompt

Prompt = dict[str, Any]
PACK_KEYS = ("cnr_id", "aux_id", "ver")  # where a node comes from; ComfyUI passes it on unread


def to_prompt(
    workflow: Mapping[str, Any],
    object_info: Mapping[str, Any],
    rng: random.Random | None = None,
    warn: Callable[[str], None] = lambda line: None,
) -> Prompt:
    """The prompt (API format) of a workflow, as the frontend's graphToPrompt makes it; a prompt passes unchanged.

    `object_info` is ComfyUI's /object_info. `rng` chooses among {a|b} in texts with dynamic prompts; by default it
    is seeded, so that the same file gives the same prompt. Nodes of unknown classes stay in, so that validation can
    name them; ``warn`` is told which of their values have no name and are lost.
    Raises WorkflowError for a graph that has no prompt (a circle of reroutes, a subgraph in itself).
    """
    if is_prompt(workflow):
        return dict(workflow)
    check(workflow)
    rng = rng or random.Random(0)
    definitions = Definitions(workflow, object_info)
    definitions.refuse_bombs(workflow)
    root = Scope(read_level(workflow, object_info, definitions.raw, is_root=True), definitions)
    prompt = {}
    for scope, node in _executable(root):
        lost = 0 if node.type in object_info else nameless_values(node)
        if lost:
            where = f"node {scope.execution_id(node)} ({node.type})"
            warn(f"{where}: its class is not installed, so its {lost} values have no names and are left out")
        inputs = _widget_inputs(node, object_info.get(node.type) or {}, rng) | _linked_inputs(scope, node)
        prompt[scope.execution_id(node)] = {
            "inputs": inputs,
            "class_type": node.type,
            "_meta": {"title": node.title} | _pack(node),
        }
    return _in_frontend_order(_without_dead_links(prompt))


def _executable(root: Scope) -> Iterator[tuple[Scope, Node]]:
    """Every node that goes into the prompt. As in the frontend, a muted subgraph is skipped on the root level only:
    deeper ones are expanded, and it is their inner nodes' own modes that count."""
    pending = [root]
    while pending:
        scope = pending.pop()
        _push_primitives(scope)
        for node in scope.level.nodes.values():
            silent = node.mode in (NEVER, BYPASS)
            if scope.is_instance(node):
                if not (silent and scope.instance is None):
                    pending.append(scope.child(node))
            elif node.type not in VIRTUAL and not silent:
                yield scope, node


def _push_primitives(scope: Scope) -> None:
    """A PrimitiveNode, muted or not, writes its value into the widgets it is linked to; its links carry nothing."""
    for node in scope.level.nodes.values():
        targets = list(linked_inputs(scope.level, node)) if node.type == "PrimitiveNode" else []
        for target, index in targets:
            name = target.inputs[index].name
            if name in target.widgets:
                spec = declared_specs(scope.definitions.object_info.get(target.type) or {}).get(name)
                value = _primitive_value(node, *targets[0])
                target.widgets[name] = spec.settled(value) if spec is not None else value


def _primitive_value(node: Node, target: Node, index: int) -> Any:
    """The saved value, or the first target's own if the primitive was saved for another type or without a value."""
    saved = node.raw.get("widgets_values")
    slot = target.inputs[index]
    if isinstance(saved, list) and saved and node.output_types[:1] == [slot.type]:
        return saved[0]
    return target.widgets.get(slot.name)


def _widget_inputs(node: Node, info: Mapping[str, Any], rng: random.Random) -> dict[str, Any]:
    specs = declared_specs(info)
    inputs = {}
    for name, value in node.widgets.items():
        spec = specs.get(name)
        if spec is not None and spec.type == "STRING" and spec.options.get("dynamicPrompts") and isinstance(value, str):
            value = choose(value, rng)
        is_curve = spec is not None and spec.type == "CURVE" and value is not None
        inputs[name] = {"__type__": "CURVE", "__value__": value} if is_curve else _wrapped(value)
    return inputs


def _linked_inputs(scope: Scope, node: Node) -> dict[str, Any]:
    inputs: dict[str, Any] = {}
    for index, slot in enumerate(node.inputs):
        source = resolve(scope, node, index)
        if isinstance(source, Origin):
            inputs[slot.name] = [source.node_id, source.slot]
        elif isinstance(source, Value):
            inputs[slot.name] = _wrapped(source.value)
    return inputs


def _wrapped(value: Any) -> Any:
    """A list would look like a link, so the frontend boxes it and the server unboxes it."""
    return {"__value__": value} if isinstance(value, list) else value


def _pack(node: Node) -> dict[str, str]:
    found = as_dict(node.raw.get("properties"))
    return {key: found[key] for key in PACK_KEYS if isinstance(found.get(key), str) and found[key]}


def _without_dead_links(prompt: Prompt) -> Prompt:
    for node in prompt.values():
        node["inputs"] = {
            name: value
            for name, value in node["inputs"].items()
            if not (isinstance(value, list) and value[0] not in prompt)
        }
    return prompt


def _in_frontend_order(prompt: Prompt) -> Prompt:
    """Whole-number ids first, ascending: the order of keys in a JavaScript object."""
    numbers = sorted((node_id for node_id in prompt if _is_array_index(node_id)), key=int)
    return {node_id: prompt[node_id] for node_id in numbers} | prompt


def _is_array_index(key: str) -> bool:
    return key.isascii() and key.isdigit() and str(int(key[:20])) == key
