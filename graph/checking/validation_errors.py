"""The shapes of ComfyUI's validation errors (execution.py and the 400 replies of a real server)."""

import inspect
import traceback
from typing import Any

from ..node_class import Classes

Error = dict[str, Any]
LONG_CYCLE = 50  # nodes; each member's error repeats the whole path


class Plain(str):
    """A message that stays readable inside a KeyError, whose text is the repr of its argument."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


class CustomValidation:
    """A class's VALIDATE_INPUTS: which inputs it takes over, and whether it is to be called at all."""

    def __init__(self, node_class: Any):
        self.function = getattr(node_class, "VALIDATE_INPUTS", None)
        spec = inspect.getfullargspec(self.function) if self.function is not None else None
        self.arguments = spec.args if spec else []
        self.takes_all = spec is not None and spec.varkw is not None
        self.is_wanted = bool(self.arguments) or self.takes_all

    def takes(self, name: str) -> bool:
        return self.takes_all or name in self.arguments

    @property
    def takes_types(self) -> bool:
        return "input_types" in self.arguments


def error(kind: str, message: str, details: str = "", extra_info: dict[str, Any] | None = None) -> Error:
    return {"type": kind, "message": message, "details": details, "extra_info": extra_info or {}}


def missing_classes(prompt: dict[str, Any], mapping: Classes) -> dict[str | None, list[str]]:
    """The ids of the nodes of each class that is not installed, and of those that have no class (None)."""
    found: dict[str | None, list[str]] = {}
    for node_id, node in prompt.items():
        class_type = node.get("class_type") if isinstance(node, dict) else None
        if not isinstance(class_type, str) or class_type not in mapping:
            found.setdefault(None if class_type is None else str(class_type), []).append(node_id)
    return found


def missing_class(prompt: dict[str, Any], missing: dict[str | None, list[str]]) -> Error:
    """ComfyUI's error, which is about the first such node; the details name all classes where there are several."""
    node_id = next(iter(missing.values()))[0]
    node = prompt[node_id] if isinstance(prompt[node_id], dict) else {}
    class_type, meta = node.get("class_type"), node.get("_meta")
    title = meta.get("title") if isinstance(meta, dict) else None
    if class_type is None:
        name = title or f"ID #{node_id}"
        message = f"Node '{name}' has no class_type. The workflow may be corrupted or a custom node is missing."
    else:
        title = title or class_type
        message = f"Node '{title}' not found. The custom node may not be installed."
    details = f"Node ID '#{node_id}'"
    if len(missing) > 1:
        details += f"; missing: {', '.join(f'{kind} ({len(ids)})' for kind, ids in missing.items())}"
    return error(
        "missing_node_type", message, details, {"node_id": node_id, "class_type": class_type, "node_title": title}
    )


def required_missing(name: str) -> Error:
    return error("required_input_missing", "Required input is missing", name, {"input_name": name})


def bad_link(name: str, config: Any, received: Any) -> Error:
    extra = {"input_name": name, "input_config": config, "received_value": received}
    return error("bad_linked_input", "Bad linked input, must be a length-2 list of [node_id, slot_index]", name, extra)


def type_mismatch(name: str, config: Any, made: Any, link: Any) -> Error:
    extra = {"input_name": name, "input_config": config, "received_type": made, "linked_node": link}
    details = f"{name}, received_type({made}) mismatch input_type({config[0]})"
    return error("return_type_mismatch", "Return type mismatch between linked nodes", details, extra)


def custom(names: list[str], verdict: Any) -> list[Error]:
    """VALIDATE_INPUTS, which looked at these inputs, said no: False, or anything else as the reason.

    ComfyUI repeats a reason for each of them. Here it is told once: of the input that it begins with (``path: name a
    folder``), or of the first where it names none. Without a reason nobody knows which one is meant.
    """
    if verdict is False:
        return [_custom(name, name) for name in names]
    blamed = next((name for name in names if str(verdict).startswith(f"{name}:")), None)
    said = str(verdict).removeprefix(f"{blamed}:").lstrip() if blamed else verdict
    return [_custom(name, f"{name} - {said}") for name in [blamed or names[0]]]


def _custom(name: str, details: str) -> Error:
    return error("custom_validation_failed", "Custom validation failed for node", details, {"input_name": name})


def cycle(path: list[str], prompt: dict[str, Any]) -> dict[str, Error]:
    """One error for each member of a cycle; `path` starts and ends at the same node. A long one is shown in part."""
    shown = path if len(path) <= LONG_CYCLE else [*path[: LONG_CYCLE - 1], path[-1]]
    names = [f"{member} ({prompt[member]['class_type']})" for member in shown]
    if len(shown) < len(path):
        names.insert(-1, f"({len(path) - len(shown)} more)")
    members = list(dict.fromkeys(shown))
    details, message = " -> ".join(names), "Dependency cycle detected"
    return {
        member: error("dependency_cycle", message, details, {"node_id": member, "cycle_nodes": members})
        for member in path[:-1]
    }


def exception(kind: str, problem: Exception, name: str = "", config: Any = None, link: Any = None) -> Error:
    """A check that raised; `name`, `config` and `link` tell through which input, for an upstream node."""
    extra = {"exception_type": type_name(type(problem)), "traceback": traceback.format_tb(problem.__traceback__)}
    if kind == "exception_during_validation":
        return error(kind, "Exception when validating node", str(problem), extra)
    extra = {"input_name": name, "input_config": config, "exception_message": str(problem)} | extra
    return error(kind, "Exception when validating inner node", str(problem), extra | {"linked_node": link})


def type_name(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
