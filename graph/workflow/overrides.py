"""Change values of a prompt from a command line: `--set OptimizerStep.steps=100`."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ..spelling import did_you_mean, without_prefix
from .widgets import InputSpec, declared_specs

TRUE, FALSE = ("true", "1", "yes", "on"), ("false", "0", "no", "off")


class OverrideError(ValueError):
    """An assignment that cannot be made; the message is one line."""


def apply(prompt: Mapping[str, Any], object_info: Mapping[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """A copy of the prompt with each `NODE.INPUT=VALUE` made, in order; a link to that input is replaced.

    NODE is an id ("4", "5:2"), a title, a class, a class without the prefix "Rollout", or a class's name on the canvas;
    the first of these that fits counts, and letter case only if something fits exactly. VALUE is read as the input's
    declared type. Raises OverrideError, which says what would have been possible.
    """
    changed = {node_id: dict(node) for node_id, node in prompt.items()}
    for assignment in assignments:
        node_id, spec, text = _find(changed, object_info, assignment)
        value = _value(spec, text, _where(changed, node_id, spec.name))
        changed[node_id]["inputs"] = changed[node_id].get("inputs", {}) | {spec.name: value}
    return changed


def _find(prompt: Mapping[str, Any], object_info: Mapping[str, Any], assignment: str) -> tuple[str, InputSpec, str]:
    """The node id, the input and the text of the value. Titles may hold dots, and titles and values equals signs."""
    splits = list(_splits(assignment))
    if not splits:
        raise OverrideError(f"cannot read {assignment!r}: write NODE.INPUT=VALUE, as in OptimizerStep.steps=100")
    known = [(ids, name, text) for node, name, text in splits if (ids := _nodes(prompt, object_info, node))]
    for ids, name, text in known:
        fitting = {node_id: specs[name] for node_id in ids if name in (specs := _specs(prompt, object_info, node_id))}
        if len(fitting) > 1:
            listed = ", ".join(fitting)
            raise OverrideError(f"{assignment!r} fits {len(fitting)} nodes; use the id of one of them: {listed}")
        if fitting:
            ((node_id, spec),) = fitting.items()
            return node_id, spec, text
    if known:
        ids, name, _ = known[0]
        raise OverrideError(_unknown_input(_specs(prompt, object_info, ids[0]), _where(prompt, ids[0]), name))
    raise OverrideError(_unknown_node(prompt, splits[0][0]))


def _splits(assignment: str) -> Iterator[tuple[str, str, str]]:
    """All ways to read NODE.INPUT=VALUE: the first equals sign and the last dot before it are the likeliest."""
    for end in (i for i, char in enumerate(assignment) if char == "="):
        for dot in range(end - 1, 0, -1):
            if assignment[dot] == ".":
                yield assignment[:dot].strip(), assignment[dot + 1 : end].strip(), assignment[end + 1 :]


def _nodes(prompt: Mapping[str, Any], object_info: Mapping[str, Any], name: str) -> list[str]:
    if name in prompt:
        return [name]

    def shown(node: Mapping[str, Any]) -> str:
        return str((object_info.get(_classes(node)) or {}).get("display_name", ""))

    for fold in (str, str.lower):
        for names in (_titles, _classes, _short_classes, shown):
            found = [node_id for node_id, node in prompt.items() if fold(names(node)) == fold(name)]
            if found and name:
                return found
    return []


def _titles(node: Mapping[str, Any]) -> str:
    return str((node.get("_meta") or {}).get("title", ""))


def _classes(node: Mapping[str, Any]) -> str:
    return str(node.get("class_type", ""))


def _short_classes(node: Mapping[str, Any]) -> str:
    return without_prefix(_classes(node))


def _specs(prompt: Mapping[str, Any], object_info: Mapping[str, Any], node_id: str) -> dict[str, InputSpec]:
    return declared_specs(object_info.get(_classes(prompt[node_id])) or {})


def _where(prompt: Mapping[str, Any], node_id: str, name: str = "") -> str:
    return f"node {node_id} ({_classes(prompt[node_id])})" + (f" input {name}" if name else "")


def _unknown_input(specs: Mapping[str, InputSpec], where: str, name: str) -> str:
    inputs = [spec.name for spec in specs.values() if spec.is_widget]
    hint = did_you_mean(name, inputs)
    listed = f"its inputs: {', '.join(inputs) or 'none that hold a value'}"
    return f"{where} has no input {name!r}; {f'{hint} ' if hint else ''}{listed}"


def _unknown_node(prompt: Mapping[str, Any], name: str) -> str:
    names = dict.fromkeys(prompt)
    for node in prompt.values():
        names |= dict.fromkeys(filter(None, (_titles(node), _classes(node), _short_classes(node))))
    hint = did_you_mean(name, names) or f"its nodes: {', '.join(list(names)[:20])}"
    return f"the workflow has no node {name!r}; {hint}"


def _value(spec: InputSpec, text: str, where: str) -> Any:
    readers: dict[str, Callable[[InputSpec, str], Any]] = {
        "INT": _number,
        "FLOAT": _number,
        "BOOLEAN": _boolean,
        "STRING": lambda spec, text: text,
        "COMBO": _option,
    }
    if spec.type not in readers:
        raise OverrideError(f"{where} takes a link ({spec.type}), not a value")
    try:
        return readers[spec.type](spec, text)
    except ValueError as error:
        raise OverrideError(f"{where}: {error}") from error


def _number(spec: InputSpec, text: str) -> int | float:
    kind = "a whole number" if spec.type == "INT" else "a number"
    try:
        number = int(text) if spec.type == "INT" else float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not {kind}") from None
    if not math.isfinite(number):
        raise ValueError(f"{text!r} is not {kind}")
    low, high = spec.options.get("min"), spec.options.get("max")
    if low is not None and number < low:
        raise ValueError(f"{text} is less than the minimum, {low}")
    if high is not None and number > high:
        raise ValueError(f"{text} is more than the maximum, {high}")
    return number


def _boolean(spec: InputSpec, text: str) -> bool:
    if text.strip().lower() not in TRUE + FALSE:
        raise ValueError(f"{text!r} is neither true nor false")
    return text.strip().lower() in TRUE


def _option(spec: InputSpec, text: str) -> Any:
    options = {str(option): option for option in spec.choices}
    names = [name.strip() for name in text.split(",")] if spec.options.get("multiselect") else [text]
    for name in names:
        if name not in options:
            hint = did_you_mean(name, options)
            listed = ", ".join(options) or "its options (there are none)"
            raise ValueError(f"{name!r} is not one of {listed}{f'; {hint}' if hint else ''}")
    chosen = [options[name] for name in names]
    return {"__value__": chosen} if spec.options.get("multiselect") else chosen[0]
