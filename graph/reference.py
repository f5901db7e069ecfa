"""Node definitions as text for people: one node for a terminal, all of them as a page of documentation."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from typing import Any


def explained(node: dict[str, Any]) -> str:
    """A node with all its inputs and outputs, for reading."""
    lines = [f"{node['name']}: {node['display_name']}", indented(node["description"]), "", "inputs"]
    for name, kind, facts, optional in inputs_of(node):
        known = [f"{word} {facts[word]}" for word in ("default", "min", "max") if word in facts]
        shown = " | ".join(kind) if isinstance(kind, list) else kind
        lines.append(f"  {name} ({', '.join([shown, *known])}{', optional' if optional else ''})")
        lines.append(indented(facts.get("tooltip", ""), 6))
    lines += [
        "",
        "outputs",
        *(f"  {name} ({kind})" for name, kind in zip(node["output_name"], node["output"], strict=True)),
    ]
    return "\n".join(lines)


def reference(definitions: dict[str, Any]) -> str:
    """All nodes as a Markdown page: what docs/nodes.md holds, so that it cannot differ from the nodes themselves."""
    page = ["# Nodes", "", "Written by `comfyui-rollout nodes --markdown`: the same words as the editor's tooltips."]
    for node in definitions.values():
        page += ["", f"## {node['display_name']}", "", f"`{node['name']}`. {node['description']}"]
        if any(node["input"].get(group) for group in ("required", "optional")):
            page += ["", "| input | type | default | meaning |", "| --- | --- | --- | --- |"]
        for name, kind, facts, optional in inputs_of(node):
            shown = ", ".join(kind) if isinstance(kind, list) else kind
            limits = f" {facts['min']} .. {facts['max']}" if "min" in facts and "max" in facts else ""
            default = f"`{json.dumps(facts['default'])}`" if "default" in facts else "optional" if optional else ""
            page.append(f"| `{name}` | {shown}{limits} | {default} | {facts.get('tooltip', '')} |")
        if node["output"]:
            page += ["", "| output | type | meaning |", "| --- | --- | --- |"]
        for name, kind, tooltip in zip(
            node["output_name"], node["output"], node.get("output_tooltips", ()), strict=True
        ):
            page.append(f"| `{name}` | {kind} | {tooltip} |")
    return "\n".join(page)


def inputs_of(node: dict[str, Any]) -> Iterator[tuple[str, Any, dict[str, Any], bool]]:
    """Name, type, options and whether it may be left out, of each input that a person sees."""
    for group in ("required", "optional"):
        for name, (kind, *rest) in node["input"].get(group, {}).items():
            yield name, kind, rest[0] if rest else {}, group == "optional"


def indented(text: str, spaces: int = 4) -> str:
    return textwrap.fill(text, 100, initial_indent=" " * spaces, subsequent_indent=" " * spaces)
