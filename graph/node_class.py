"""What a node class declares: the V1 protocol's class attributes, read in one place."""

import inspect
from collections.abc import Mapping
from typing import Any

Classes = Mapping[str, Any]  # class_type -> node class


def input_spec(types: Mapping[str, Any], name: str) -> tuple[Any, str | None, dict[str, Any]]:
    """(type, category, options) of a named input in INPUT_TYPES(); the category is None if it is not declared."""
    for category in ("required", "optional", "hidden"):
        spec = (types.get(category) or {}).get(name)
        if spec is not None:
            options = spec[1] if not isinstance(spec, str) and len(spec) > 1 else {}
            return (spec if isinstance(spec, str) else spec[0]), category, options
    return None, None, {}


def is_output(node_class: Any) -> bool:
    return getattr(node_class, "OUTPUT_NODE", False) is True


def is_async(node_class: Any) -> bool:
    return inspect.iscoroutinefunction(getattr(node_class, getattr(node_class, "FUNCTION", ""), None))


def is_link(value: Any) -> bool:
    """True for ["node id", output index], the only way a prompt writes a link."""
    return (
        isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int | float)
    )


def is_blocker(value: Any) -> bool:
    """True for an ExecutionBlocker of any origin (ComfyUI's own or a pack's copy): known by its name."""
    return type(value).__name__ == "ExecutionBlocker"


def hidden_inputs(
    types: Mapping[str, Any], node_id: str, prompt: Any = None, dynprompt: Any = None, extra_data: Any = None
) -> dict[str, Any]:
    """The values of the hidden inputs a class asks for, by input name."""
    extra_data = extra_data or {}
    values = {
        "UNIQUE_ID": node_id,
        "PROMPT": prompt if prompt is not None else {},
        "DYNPROMPT": dynprompt,
        "EXTRA_PNGINFO": extra_data.get("extra_pnginfo"),
        "AUTH_TOKEN_COMFY_ORG": extra_data.get("auth_token_comfy_org"),
        "API_KEY_COMFY_ORG": extra_data.get("api_key_comfy_org"),
        "COMFY_USAGE_SOURCE": extra_data.get("comfy_usage_source"),
    }
    wanted = {name: spec if isinstance(spec, str) else spec[0] for name, spec in (types.get("hidden") or {}).items()}
    return {name: values[kind] for name, kind in wanted.items() if kind in values}
