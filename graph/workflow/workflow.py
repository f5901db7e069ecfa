"""Read a workflow from a file: UI format, API format, or either one embedded in an image or a checkpoint."""

import json
from pathlib import Path
from typing import Any

from .embedded import PNG, BrokenFile, foreign_kind, is_webp, png_texts, safetensors_metadata, webp_texts

READ = "JSON, PNG, WEBP and .safetensors"


class WorkflowError(ValueError):
    """A workflow that cannot be read or converted; the message is one line."""


def load(path: str | Path) -> dict[str, Any]:
    """The workflow in a file, in the format it was saved in.

    Reads JSON (UI format 0.4, version-1 root, or API format), and the `workflow` or else the `prompt` that ComfyUI
    embeds in a PNG, a WEBP or a `.safetensors` file. Raises WorkflowError, which names the file and what is wrong.
    """
    path = Path(path)
    try:
        if path.suffix.lower() == ".safetensors":
            return _parse_embedded(safetensors_metadata(path), path)
        data = path.read_bytes()
        if data.startswith(PNG) or is_webp(data):
            return _parse_embedded(png_texts(data) if data.startswith(PNG) else webp_texts(data), path)
        kind = foreign_kind(data)
        if kind is not None:
            raise WorkflowError(f"{path}: is {kind}; this kind of file is not read, only {READ}")
        return _parse(data, path)
    except OSError as error:
        raise WorkflowError(f"{path}: cannot be read: {error.strerror or error}") from error
    except BrokenFile as error:
        raise WorkflowError(f"{path}: {error}") from error


def is_prompt(data: Any) -> bool:
    """True if the object is in API format: a non-empty dict of nodes that each have a `class_type`."""
    return (
        isinstance(data, dict)
        and bool(data)
        and "nodes" not in data
        and all(isinstance(node, dict) and "class_type" in node for node in data.values())
    )


def _parse_embedded(texts: dict[str, str], path: Path) -> dict[str, Any]:
    for key in ("workflow", "prompt"):
        if texts.get(key):
            return _parse(texts[key].encode(), path)
    raise WorkflowError(f"{path}: holds no workflow (neither `workflow` nor `prompt` in its metadata)")


def _parse(data: bytes, path: Path) -> dict[str, Any]:
    try:
        workflow = json.loads(data.decode(json.detect_encoding(data)))  # PowerShell redirects into UTF-16
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        raise WorkflowError(f"{path}: is not JSON: {error.msg} at {where}") from error
    except UnicodeDecodeError as error:
        raise WorkflowError(f"{path}: is not JSON: not UTF-8 text") from error
    except (RecursionError, ValueError) as error:
        raise WorkflowError(f"{path}: is not a workflow: nested too deeply or holds an absurd number") from error
    return check(workflow, str(path))


def check(workflow: Any, name: str = "workflow") -> dict[str, Any]:
    """The workflow itself if it looks like one in either format; else WorkflowError, which starts with `name`."""
    if not isinstance(workflow, dict):
        raise WorkflowError(f"{name}: is not a workflow: a JSON object is needed, not {_kind(workflow)}")
    if is_prompt(workflow):
        return workflow
    if "nodes" not in workflow:
        if is_prompt(workflow.get("prompt")):
            raise WorkflowError(f"{name}: is a queue request; the workflow is the object under its `prompt`")
        raise WorkflowError(f"{name}: is not a workflow: it has no `nodes` list and is not in API format either")
    if not isinstance(workflow["nodes"], list):
        raise WorkflowError(f"{name}: is not a workflow: `nodes` must be a list, not {_kind(workflow['nodes'])}")
    version = workflow.get("version", 0.4)
    if not isinstance(version, int | float) or version > 1:
        raise WorkflowError(f"{name}: workflow version {version!r} is not supported; 0.4 and 1 are")
    return workflow


def _kind(value: Any) -> str:
    names = {list: "a list", str: "a string", bool: "a boolean", int: "a number", float: "a number", dict: "an object"}
    return names.get(type(value), "null")
