"""What Optimizer Step needs to go on with an earlier run."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...training.state import SavedState, find_state


def state_of(name: str, output_folder: Path) -> SavedState:
    """The state of the run of that name, or at that full path. Raises ValueError if there is none to use."""
    output, runs = output_folder.resolve(), output_folder / "rollout"
    name, step = run_and_step(name.strip(), runs)
    folder = runs / name
    if folder.resolve().is_relative_to(output):  # whatever way leads there, its files are known by the one below it
        folder = output_folder / folder.resolve().relative_to(output)
    return find_state(folder, step)


def run_and_step(name: str, runs: Path) -> tuple[str, int | None]:
    """``run_00001@250`` is the run's state after step 250; a folder may also be called so."""
    run, at, step = name.rpartition("@")
    return (run, int(step)) if at and step.isdecimal() and not (runs / name).is_dir() else (name, None)


def begun_anew(prompt: Any, extra_pnginfo: Any, node_id: str, resume: str) -> tuple[Any, Any]:
    """Prompt and workflow as they are kept with a resumed run: loaded again, they begin one of their own."""
    prompt, extra = copy.deepcopy((prompt, extra_pnginfo))
    if node_id in (prompt or {}):
        prompt[node_id]["inputs"]["resume"] = ""
    for values in widgets_of((extra or {}).get("workflow")):
        if isinstance(values, dict) and values.get("resume") == resume:
            values["resume"] = ""
        elif isinstance(values, list):
            places = [place for place, value in enumerate(values) if value == resume]
            if places:  # run_name comes before it, and may be the same
                values[places[-1]] = ""
    return prompt, extra


def widgets_of(workflow: Any) -> Iterator[Any]:
    """The values of the widgets, by place or by name, of every Optimizer Step on the canvas and in its subgraphs."""
    if not isinstance(workflow, dict):
        return
    graphs = [workflow, *workflow.get("definitions", {}).get("subgraphs", [])]
    for node in (node for graph in graphs for node in graph.get("nodes", [])):
        if isinstance(node, dict) and node.get("type") == "RolloutOptimizerStep":
            yield from (node.get("widgets_values"), node.get("widgets_values_named"))
