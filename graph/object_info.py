"""ComfyUI's /object_info: what each node class looks like to a frontend."""

import json
import logging
from collections.abc import Mapping
from typing import Any

from .node_class import Classes, is_output

log = logging.getLogger(__name__)

FLAGS = {"DEPRECATED": "deprecated", "EXPERIMENTAL": "experimental", "DEV_ONLY": "dev_only"}
OPTIONAL = {
    "OUTPUT_TOOLTIPS": "output_tooltips",
    "API_NODE": "api_node",
    "ESSENTIALS_CATEGORY": "essentials_category",
}


def object_info(
    mapping: Classes,
    display_names: Mapping[str, str] | None = None,
    python_module: str = "custom_nodes.comfyui-rollout",
) -> dict[str, Any]:
    """One entry per V1 node class, as plain JSON values; a class whose entry fails is logged and left out."""
    entries = {}
    for name, node_class in mapping.items():
        try:
            entry = _entry(name, node_class, (display_names or {}).get(name, name), python_module)
            # Through JSON: tuples become lists, and what a browser could not parse fails here, not there.
            entries[name] = json.loads(json.dumps(entry, allow_nan=False))
        except Exception as error:
            log.warning("node class %s is left out: %s: %s", name, type(error).__name__, error)
    return entries


def _entry(name: str, node_class: Any, display_name: str, python_module: str) -> dict[str, Any]:
    inputs = node_class.INPUT_TYPES()
    outputs = node_class.RETURN_TYPES
    entry = {
        "input": inputs,
        "input_order": {category: list(specs) for category, specs in inputs.items()},
        "is_input_list": getattr(node_class, "INPUT_IS_LIST", False),
        "output": outputs,
        "output_is_list": getattr(node_class, "OUTPUT_IS_LIST", [False] * len(outputs)),
        "output_name": getattr(node_class, "RETURN_NAMES", outputs),
        "name": name,
        "display_name": display_name,
        "description": getattr(node_class, "DESCRIPTION", ""),
        "python_module": python_module,
        "category": getattr(node_class, "CATEGORY", "sd"),
        "output_node": is_output(node_class),
        "has_intermediate_output": getattr(node_class, "HAS_INTERMEDIATE_OUTPUT", False) is True,
        "search_aliases": getattr(node_class, "SEARCH_ALIASES", []),
    }
    entry |= {key: True for attribute, key in FLAGS.items() if getattr(node_class, attribute, False)}
    entry |= {key: getattr(node_class, attr) for attr, key in OPTIONAL.items() if hasattr(node_class, attr)}
    return entry
