"""Translations: every node is described, and nothing is translated that is not there."""

import json
import re
from pathlib import Path

import pytest
from comfyui_rollout import NODE_CLASS_MAPPINGS

ROOT = Path(__file__).parents[1]
LANGUAGES = sorted(path.parent.name for path in (ROOT / "locales").glob("*/nodeDefs.json"))


@pytest.fixture(params=LANGUAGES)
def words(request):
    return json.loads((ROOT / "locales" / request.param / "nodeDefs.json").read_text(encoding="utf-8"))


def test_there_is_hindi():
    """The language of the guide in docs/hi."""
    assert "hi" in LANGUAGES


def test_every_node_is_described(words):
    """A new node gets its line in every language."""
    assert set(words) == set(NODE_CLASS_MAPPINGS)
    assert [name for name, node in words.items() if not node.get("description", "").strip()] == []


def test_only_inputs_that_exist_are_translated(words):
    """An input that was renamed takes its tooltip along."""
    for name, node in words.items():
        declared = NODE_CLASS_MAPPINGS[name].INPUT_TYPES()
        known = {*declared.get("required", {}), *declared.get("optional", {})}
        assert set(node.get("inputs", {})) <= known, name
        assert all(part["tooltip"].strip() for part in node.get("inputs", {}).values())


def test_hindi_is_written_in_hindi(words):
    """No text was left in English by mistake."""
    for name, node in words.items():
        for text in [node["description"], *(part["tooltip"] for part in node.get("inputs", {}).values())]:
            assert len(re.findall(r"[\u0900-\u097f]", text)) > len(text) / 5, (name, text)
