"""Our own workflow files, run without a browser: other data, another beginning, and what `--set` would change."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from comfyui_rollout import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS
from comfyui_rollout.__main__ import main as command_line
from comfyui_rollout.graph import load, object_info, to_prompt
from meter import Cost, metered

WORKFLOWS = Path(__file__).parents[2] / "workflows"
TRAINER = "RolloutOptimizerStep"
QUIET = ("OptimizerStep.preview_every=0", "OptimizerStep.sample_every=0")


def prompt_of(workflow: str) -> dict[str, Any]:
    """The shipped workflow up to its Optimizer Step; what it shows and saves afterwards is left out."""
    definitions = object_info(NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS)
    prompt = to_prompt(load(WORKFLOWS / workflow), definitions)
    trainer = next(number for number, node in prompt.items() if node["class_type"] == TRAINER)
    prompt[trainer]["inputs"].pop("samples", None)
    needed, open_ends = set(), [trainer]
    while open_ends:
        number = open_ends.pop()
        needed.add(number)
        links = (value for value in prompt[number]["inputs"].values() if isinstance(value, list))
        open_ends += [source for source, _ in links if source not in needed]
    return {number: node for number, node in prompt.items() if number in needed}


def replaced(prompt: dict[str, Any], class_type: str, by: str, **inputs: Any) -> dict[str, Any]:
    """With another node in the place of the one of that class."""
    return {
        number: {"class_type": by, "inputs": inputs} if node["class_type"] == class_type else node
        for number, node in prompt.items()
    }


def bypassed(prompt: dict[str, Any], class_type: str, handed_on: str) -> dict[str, Any]:
    """Without the node of that class: what came into that input goes to those behind it, as bypassing it does."""
    number, node = next((number, node) for number, node in prompt.items() if node["class_type"] == class_type)
    before = node["inputs"][handed_on]

    def around(value: Any) -> Any:
        return before if isinstance(value, list) and value[0] == number else value

    return {
        other: {**each, "inputs": {name: around(value) for name, value in each["inputs"].items()}}
        for other, each in prompt.items()
        if other != number
    }


def train(
    prompt: dict[str, Any], changes: Sequence[str], output: Path, name: str, device: str = "cpu"
) -> tuple[Path, Cost]:
    """Run it as `comfyui-rollout run` does; the run's folder, and what the training has cost."""
    output.mkdir(parents=True, exist_ok=True)
    file = output / f"{name}.json"
    file.write_text(json.dumps(prompt))
    arguments = ["run", str(file), "--output", str(output), "--device", device]
    for change in (*QUIET, f"OptimizerStep.run_name={name}", *changes):
        arguments += ["--set", change]
    said = io.StringIO()
    with metered(device) as cost, redirect_stdout(said), redirect_stderr(said):
        failed = command_line(arguments)
    if failed:
        raise SystemExit(f"{name} did not train:\n{said.getvalue()}")
    (folder,) = (output / "rollout").iterdir()  # a new one, or the one that it went on with
    return folder, cost
