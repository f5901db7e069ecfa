"""Conversion against triples that the official frontend made, of long graphs and of junk."""

import contextlib
import sys

import pytest
from comfyui_rollout.graph import WorkflowError, load, to_prompt, validate
from hypothesis import given, settings
from hypothesis import strategies as st
from saved_flows import INFO, inputs

TRIPLES = [
    *("bypass", "linear", "mute", "notes", "primitive", "reroute_node", "subgraph", "subgraph_promoted"),
    *("widget_input", "widgets"),
]


@pytest.mark.parametrize("kind", ["ui", "embedded"])
@pytest.mark.parametrize("name", TRIPLES)
def test_equals_the_official_frontend(data, info, name, kind):
    """Saved and embedded files alike give the prompt that the official frontend queued, down to the order of keys."""
    info["DummyValue"]["display_name"] = "Dummy Value (en)"  # the recording pack's locale file renamed it
    folder = data / "converter"
    prompt, theirs = to_prompt(load(folder / f"{name}.{kind}.json"), info), load(folder / f"{name}.api.json")
    assert prompt == theirs
    assert list(prompt) == list(theirs)
    assert all(list(prompt[key]["inputs"]) == list(theirs[key]["inputs"]) for key in theirs)


@pytest.mark.parametrize("name", TRIPLES)
def test_version_1_root_and_names_without_positions(data, info, name):
    """Links written as objects, and widgets known by name only, mean the same."""
    workflow = load(data / "converter" / f"{name}.ui.json")
    expected = to_prompt(workflow, info)
    keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    workflow |= {"version": 1, "links": [dict(zip(keys, link, strict=True)) for link in workflow["links"]]}
    assert to_prompt(workflow, info) == expected
    ids = {definition["id"] for definition in workflow.get("definitions", {}).get("subgraphs", [])}
    for node in workflow["nodes"]:
        named = node.pop("widgets_values_named", None)
        if node["type"] in info or node["type"] in ids:
            node["widgets_values"] = named
    assert to_prompt(workflow, info) == expected


def test_prompt_passes_unchanged(prompt, info):
    """A file in API format is its own conversion."""
    assert to_prompt(prompt, info) == prompt


def test_titles_packs_and_order(flow, node):
    """_meta carries the title (own, display name, class) and the pack; whole-number ids come first, ascending."""
    pack = {"properties": {"cnr_id": "pack", "ver": "1", "aux_id": 3}}
    nodes = [node("b", "Make"), node(10, "Make", title="mine"), node(2, "Pass", **pack)]
    prompt = to_prompt(flow(nodes, []), INFO)
    assert list(prompt) == ["2", "10", "b"]
    assert prompt["b"]["_meta"] == {"title": "Maker"}
    assert prompt["10"]["_meta"] == {"title": "mine"}
    assert prompt["2"]["_meta"] == {"title": "Pass", "cnr_id": "pack", "ver": "1"}


def test_missing_class_stays_for_validation(flow, node):
    """What is known of an unknown node is kept, so that the error can name it."""
    nodes = [
        node(1, "Make"),
        node(2, "Gone", {"a": 1}, title="my node", widgets_values_named={"w": 3}),
        node(3, "Sink"),
    ]
    prompt = to_prompt(flow(nodes, [[1, 1, 0, 2, 0, "FLOAT"]]), INFO)
    assert prompt["2"]["inputs"] == {"w": 3, "a": ["1", 0]}
    error = validate(prompt, {"Make": object, "Sink": object}).error
    assert error["type"] == "missing_node_type"
    assert error["extra_info"] == {"node_id": "2", "class_type": "Gone", "node_title": "my node"}


def chain(flow, node, count, mode):
    nodes = [node(i, "Pass", {"value": i}, ["FLOAT"], mode) for i in range(1, count)]
    links = [[i, i - 1, 0, i, 0, "FLOAT"] for i in range(1, count + 1)]
    return flow([node(0, "Make"), *nodes, node(count, "Sink", {"value": count})], links)


def work(workflow):
    """Lines of Python that converting it takes, each turn of a loop counted."""
    lines = 0

    def count(frame, event, argument):
        nonlocal lines
        lines += event == "line"
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        inputs(workflow)
    finally:
        sys.settrace(before)
    return lines


@pytest.mark.parametrize("mode", [0, 4])
def test_long_chain(flow, node, mode):
    """5,000 nodes in a row, executed or bypassed, need no recursion."""
    count = 5000
    found = inputs(chain(flow, node, count, mode))
    assert found[str(count)]["value"] == ["0" if mode else str(count - 1), 0]


@pytest.mark.parametrize("mode", [0, 4])
def test_twice_as_long_a_chain_is_twice_the_work(flow, node, mode):
    """And no patience: the work is counted, which is the same on a busy machine."""
    once, twice = (work(chain(flow, node, count, mode)) for count in (150, 300))
    assert 300 < once < twice < 2.2 * once


KEYS = ["id", "type", "inputs", "outputs", "link", "name", "links", "mode", "widgets_values", "properties", "widget"]
junk = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-20, 3)
    | st.text(max_size=3)
    | st.sampled_from(["Pass", "Reroute", "inner"]),
    lambda items: st.lists(items, max_size=3) | st.dictionaries(st.sampled_from(KEYS), items, max_size=4),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None)
@given(nodes=st.lists(junk, max_size=3), links=junk, definitions=junk)
def test_junk_never_crashes(nodes, links, definitions):
    """Whatever a file holds, it converts or it is a WorkflowError."""
    node = {"id": 1, "type": "Pass", "inputs": links, "outputs": links, "properties": links, "widgets_values": links}
    definition = {"id": "inner", "nodes": nodes, "links": links, "inputs": nodes, "outputs": links}
    workflow = {"nodes": [node, {"id": 2, "type": "inner"}, *nodes], "links": links, "extra": links}
    workflow["definitions"] = {"subgraphs": [definition, definitions]} if isinstance(definitions, dict) else definitions
    with contextlib.suppress(WorkflowError):
        validate(to_prompt(workflow, INFO), {})
