"""Validation errors as plain lines for a terminal."""

from collections.abc import Mapping
from typing import Any

from .checking.validate import Validation

REMEDIES = {
    "required_input_missing": "link it or give it a value",
    "bad_linked_input": 'write a link as ["node id", output index]',
    "return_type_mismatch": "link an output of the type that the input takes",
    "invalid_input_type": "give it a value of the type that the input takes",
    "value_smaller_than_min": "raise the value",
    "value_bigger_than_max": "lower the value",
    "value_not_in_list": "choose one of the options",
    "dependency_cycle": "remove one link of the cycle",
    "exception_during_validation": "check the node's links and values",
    "exception_during_inner_validation": "check that node's links and values",
    "custom_validation_failed": "change the value",
}

MOST_LISTED = 10  # ids of nodes in one line


def describe(validation: Validation, prompt: Mapping[str, Any]) -> list[str]:
    """One line per error: node id, title and class, the input, what is wrong and what to do. Empty if all is well."""
    lines = [
        f"{_name(node_id, prompt)}: {_sentence(error)}"
        for node_id, entry in validation.node_errors.items()
        for error in entry["errors"]
    ]
    if validation.missing:
        return [_missing(class_type, ids, prompt) for class_type, ids in validation.missing.items()]
    return lines if lines or validation.error is None else [_top_level(validation.error, prompt)]


def _name(node_id: str, prompt: Mapping[str, Any]) -> str:
    node = prompt.get(node_id)
    node = node if isinstance(node, Mapping) else {}
    class_type, meta = node.get("class_type"), node.get("_meta")
    title = meta.get("title") if isinstance(meta, Mapping) else None
    if title in (None, "", class_type):
        return f"node {node_id} ({class_type})"
    return f"node {node_id} {title!r} ({class_type})"


def _sentence(error: Mapping[str, Any]) -> str:
    kind, extra = error["type"], error["extra_info"]
    name = extra.get("input_name")
    details = " ".join(str(error["details"]).split())
    texts = {
        "required_input_missing": f"input {name!r} is missing",
        "value_smaller_than_min": f"input {name!r}: {_lower(error['message'])}",
        "value_bigger_than_max": f"input {name!r}: {_lower(error['message'])}",
        "value_not_in_list": f"input {details}",
        "invalid_input_type": f"input {name!r}: {extra.get('received_value')!r} is no {_type(extra)}",
        "bad_linked_input": f"input {name!r} is a list that is no link",
        "return_type_mismatch": f"input {name!r} takes {_type(extra)}, but is linked to {extra.get('received_type')}",
        "dependency_cycle": f"it depends on itself: {details}",
        "custom_validation_failed": "input " + details.replace(" - ", ": ", 1),
        "exception_during_validation": details,
        "exception_during_inner_validation": details,
    }
    return f"{texts.get(kind, details or error['message'])}; {REMEDIES.get(kind, 'check the node')}"


def _type(extra: Mapping[str, Any]) -> str:
    config = extra.get("input_config") or ["value"]
    return "option" if isinstance(config[0], list) else str(config[0])


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _missing(class_type: str | None, ids: list[str], prompt: Mapping[str, Any]) -> str:
    """One class that is not installed, with the nodes that are of it."""
    remedy = "install the pack it comes from or remove the node" + "s" * (len(ids) > 1)
    if len(ids) == 1:
        problem = "it has no class" if class_type is None else f"no installed pack has the class {class_type!r}"
        return f"{_name(ids[0], prompt)}: {problem}; {remedy}"
    listed = ", ".join(ids[:MOST_LISTED]) + ", ..." * (len(ids) > MOST_LISTED)
    problem = "have no class" if class_type is None else f"are of the class {class_type!r}, which no installed pack has"
    return f"{len(ids)} nodes ({listed}) {problem}; {remedy}"


def _top_level(error: Mapping[str, Any], prompt: Mapping[str, Any]) -> str:
    if error["type"] == "prompt_no_outputs":
        return (
            "the workflow has no output node, so there is nothing to run; add one (a node that saves, shows or trains)"
        )
    return str(error["message"])
