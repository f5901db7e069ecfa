"""What nodes found, in the log: the same words that the editor draws on them."""

import logging
from collections.abc import Mapping
from typing import Any

log = logging.getLogger(__name__)


def log_found(prompt: Mapping[str, Any], kind: str, data: Any) -> None:
    """Write the texts of an ``executed`` event into the log; other events say nothing."""
    if kind != "executed" or not isinstance(texts := data["output"].get("text"), list):
        return
    node = prompt.get(data["node"], {})
    title = node.get("_meta", {}).get("title") or node.get("class_type", "")
    for text in texts:
        log.info("node %s (%s): %s", data["node"], title, text)
