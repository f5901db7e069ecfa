"""The help pages in the editor: every node has one, and it speaks of every input."""

import re
from pathlib import Path

import pytest
from comfyui_rollout import NODE_CLASS_MAPPINGS

PAGES = Path(__file__).parents[1] / "web" / "docs"


def inputs_of(node):
    declared = node.INPUT_TYPES()
    return [*declared.get("required", {}), *declared.get("optional", {})]


@pytest.mark.parametrize("name", sorted(NODE_CLASS_MAPPINGS))
def test_every_input_is_explained(name):
    """Each input has its entry under Options: a list item that begins with its name, or names it among others."""
    page = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    explained = set(re.findall(r"\*\*([a-z0-9_]+)\*\*", page))
    assert set(inputs_of(NODE_CLASS_MAPPINGS[name])) <= explained


@pytest.mark.parametrize("name", sorted(NODE_CLASS_MAPPINGS))
def test_a_page_is_made_for_a_person_who_trains(name):
    """It begins with the name that the editor shows, says what goes wrong, and is short enough to be read."""
    page = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    assert page.startswith(f"# {NODE_CLASS_MAPPINGS[name].DISPLAY_NAME}\n")
    assert "## Common mistakes" in page
    assert len(page.split()) < 800


@pytest.mark.parametrize("name", sorted(NODE_CLASS_MAPPINGS))
def test_options_that_a_page_names_exist(name):
    """A bold name that begins a list item is an input of the node, or an output: none is left from an older version."""
    node = NODE_CLASS_MAPPINGS[name]
    page = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    listed = re.findall(r"^- ((?:\*\*[a-z0-9_]+\*\*(?:, )?)+)", page, re.MULTILINE)
    named = {found for entry in listed for found in re.findall(r"\*\*([a-z0-9_]+)\*\*", entry)}
    assert named <= {*inputs_of(node), *getattr(node, "RETURN_NAMES", ())}


def test_no_page_is_left_over():
    """A page without its node is found by nobody."""
    assert {page.stem for page in PAGES.glob("*.md")} == set(NODE_CLASS_MAPPINGS)
