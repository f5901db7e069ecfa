"""Conversion against triples that the official frontend made, and cases read from its sources.

In the hand-made cases `Pass` has a socket `value` and widgets `gain`, `steps`; types are FLOAT unless said otherwise.
"""

import contextlib
import random
import sys

import pytest
from comfyui_rollout.graph import WorkflowError, load, to_prompt, validate
from hypothesis import given, settings
from hypothesis import strategies as st

TRIPLES = [
    *("bypass", "linear", "mute", "notes", "primitive", "reroute_node", "subgraph", "subgraph_promoted"),
    *("widget_input", "widgets"),
]
INFO = {
    "Make": {"display_name": "Maker", "input": {"required": {"seed": ["INT", {}]}}, "output": ["FLOAT", "INT"]},
    "Pass": {
        "input": {
            "required": {"gain": ["FLOAT", {"default": 1.0}], "value": ["FLOAT", {"forceInput": True}]},
            "optional": {"steps": ["INT", {"default": 4}]},
        },
        "output": ["FLOAT"],
    },
    "Sink": {"input": {"required": {"value": ["FLOAT", {"forceInput": True}]}}, "output": [], "output_node": True},
    "Text": {"input": {"required": {"text": ["STRING", {"dynamicPrompts": True}]}}, "output": ["STRING"]},
}


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


def inputs(workflow, info=INFO):
    return {node_id: node["inputs"] for node_id, node in to_prompt(workflow, info).items()}


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


def test_muted_source_and_dead_links_leave_the_input_out(flow, node):
    """A muted source, a link that no table lists, and a link from a node that is not there carry nothing."""
    nodes = [node(1, "Make", mode=2), *(node(i, "Sink", {"value": i}) for i in (2, 3, 4))]
    found = inputs(flow(nodes, [[2, 1, 0, 2, 0, "FLOAT"], [4, 99, 0, 4, 0, "FLOAT"]]))
    assert found == {"2": {}, "3": {}, "4": {}}


def test_link_into_a_widget_falls_back_to_its_value(flow, node):
    """A widget linked to a muted node is the widget's own value again."""
    nodes = [node(1, "Make", mode=2), node(2, "Pass", {"gain": 1}, widgets_values=[7.0, 5])]
    assert inputs(flow(nodes, [[1, 1, 0, 2, 0, "FLOAT"]])) == {"2": {"gain": 7.0, "steps": 5}}


def test_chain_of_bypassed_nodes(flow, node):
    """A bypassed node passes the input of the same index, else of the exact type."""
    nodes = [node(1, "Make"), *(node(i, "Pass", {"value": i}, mode=4) for i in (2, 3)), node(4, "Sink", {"value": 4})]
    links = [[2, 1, 0, 2, 0, "FLOAT"], [3, 2, 0, 3, 0, "FLOAT"], [4, 3, 0, 4, 0, "FLOAT"]]
    assert inputs(flow(nodes, links)) == {"1": {"seed": 0}, "4": {"value": ["1", 0]}}


@pytest.mark.parametrize(
    ("types", "output", "wanted", "found"),
    [
        (["A", "B"], "B", "B", "2"),
        (["B", "B"], "B", "B", "1"),
        (["A", "b,c", "C"], "C", "C", "3"),
        (["A", "b,c"], "C", "C", "2"),
        (["A", "A"], "B", "B", None),
        (["A", "B"], "B", "*", "1"),
        (["*", "B"], "B", "B", "1"),
    ],
)
def test_which_input_a_bypassed_node_passes(flow, node, types, output, wanted, found):
    """Same index if it fits both ends, else the exact type, else the first that fits, else nothing; case is ignored."""
    slots = [{"name": f"i{i}", "type": kind, "link": i + 1} for i, kind in enumerate(types)]
    sources = [node(i + 1, "Make") for i in range(len(types))]
    target = node(9, "Any", [{"name": "x", "type": wanted, "link": 90}])
    links = [[i + 1, i + 1, 0, 8, i, "*"] for i in range(len(types))] + [[90, 8, 0, 9, 0, "*"]]
    prompt = inputs(flow([*sources, node(8, "Other", slots, [output], mode=4), target], links))
    assert prompt["9"] == ({"x": [found, 0]} if found else {})


def test_reroutes(flow, node):
    """Chains of reroutes are followed, also from bypassed and muted nodes; an unlinked one carries nothing."""
    nodes = [
        *(
            node(1, "Make"),
            node(2, "Pass", {"value": 1}, mode=4),
            node(3, "Reroute", {"": 2}),
            node(4, "Reroute", {"": 3}),
        ),
        *(node(5, "Sink", {"value": 4}), node(6, "Reroute", {"": None}), node(7, "Sink", {"value": 5})),
    ]
    links = [
        [1, 1, 0, 2, 0, "*"],
        [2, 2, 0, 3, 0, "*"],
        [3, 3, 0, 4, 0, "*"],
        [4, 4, 0, 5, 0, "*"],
        [5, 6, 0, 7, 0, "*"],
    ]
    found = inputs(flow(nodes, links))
    assert (found["5"], found["7"]) == ({"value": ["1", 0]}, {})
    assert set(found) == {"1", "5", "7"}


def test_native_reroutes_are_only_drawn(flow, node):
    """Reroute points on links (extra.reroutes) change nothing."""
    extra = {"reroutes": [{"id": 1, "linkIds": [1]}], "linkExtensions": [{"id": 1, "parentId": 1}]}
    nodes = [node(1, "Make"), node(2, "Sink", {"value": 1})]
    assert inputs(flow(nodes, [[1, 1, 0, 2, 0, "FLOAT"]], extra=extra))["2"] == {"value": ["1", 0]}


def test_circle_of_reroutes_is_an_error(flow, node):
    """A circle without a node that executes would be followed for ever."""
    nodes = [node(1, "Reroute", {"": 1}), node(2, "Reroute", {"": 2}), node(3, "Sink", {"value": 3})]
    links = [[1, 2, 0, 1, 0, "*"], [2, 1, 0, 2, 0, "*"], [3, 2, 0, 3, 0, "*"]]
    with pytest.raises(WorkflowError, match="node 3: input 'value' is fed by a circle"):
        to_prompt(flow(nodes, links), INFO)


def test_links_by_name_not_by_position(flow, node):
    """An embedded file leaves out unlinked widget slots, so slot numbers there do not match the class."""
    nodes = [node(1, "Make"), node(2, "Pass", {"steps": 1, "gain": 2})]
    found = inputs(flow(nodes, [[1, 1, 1, 2, 0, "INT"], [2, 1, 0, 2, 1, "FLOAT"]]))
    assert found["2"] == {"steps": ["1", 1], "gain": ["1", 0]}


def test_link_that_only_the_table_knows(flow, node):
    """A hand-written file may list links without naming them in the nodes' inputs."""
    assert inputs(flow([node("a", "Make"), node("b", "Sink")], [["x", "a", 0, "b", 0, "*"]]))["b"] == {
        "value": ["a", 0]
    }


# --- widgets


@pytest.mark.parametrize(
    ("spec", "values", "expected"),
    [
        ({"seed": ["INT", {}], "b": ["INT", {}]}, [1, "fixed", 2], {"seed": 1, "b": 2}),
        ({"seed": ["INT", {"control_after_generate": False}], "b": ["INT", {}]}, [1, 2], {"seed": 1, "b": 2}),
        ({"a": ["FLOAT", {"control_after_generate": True}], "b": ["INT", {}]}, [1, "fixed", 2], {"a": 1, "b": 2}),
        (
            {"a": [["p", "q"], {"control_after_generate": True}], "b": ["INT", {}]},
            ["q", "fixed", "", 2],
            {"a": "q", "b": 2},
        ),
        ({"a": ["INT", {"forceInput": True}], "b": ["INT", {}]}, [2], {"b": 2}),
        ({"a": ["INT", {"forceInput": True}], "b": ["INT", {}]}, [1, 2], {"b": 2}),
        ({"a": ["INT", {"defaultInput": True}], "b": ["INT", {}]}, [1, 2], {"a": 1, "b": 2}),
        ({"image": [["a.png"], {"image_upload": True}]}, ["a.png", "image"], {"image": "a.png"}),
        (
            {"a": ["INT", {"default": 5}], "b": [["p", "q"], {"default": "q"}], "c": [["p"]]},
            [],
            {"a": 5, "b": "q", "c": "p"},
        ),
        (
            {"a": ["INT"], "b": ["FLOAT"], "c": ["STRING"], "d": ["BOOLEAN"]},
            None,
            {"a": 0, "b": 0, "c": "", "d": False},
        ),
        ({"a": [["p", "q"], {}]}, [None], {"a": "p"}),
        ({"a": ["MODEL"], "b": ["MY", {"widgetType": "STRING"}]}, ["s"], {"b": "s"}),
        ({"a": ["STRING", {}]}, [["x", "y"]], {"a": {"__value__": ["x", "y"]}}),
        ({"a": ["CURVE", {}]}, [[1, 2]], {"a": {"__type__": "CURVE", "__value__": [1, 2]}}),
        ({"a": ["INT", {}], "b": ["INT", {}]}, {"b": 2, "a": 1, "button": None}, {"a": 1, "b": 2}),
    ],
)
def test_widget_slots(flow, node, spec, values, expected):
    """Every kind of extra or missing slot in widgets_values; a shift by one would train with wrong numbers."""
    info = {"K": {"input": {"required": spec}, "output": []}}
    assert inputs(flow([node(1, "K", widgets_values=values)], []), info) == {"1": expected}


def test_widget_order_is_input_order(flow, node):
    """input_order decides, required before optional; what it leaves out comes last."""
    spec = {"required": {"c": ["INT"], "a": ["INT"]}, "optional": {"x": ["INT", {"defaultInput": True}], "b": ["INT"]}}
    info = {"K": {"input": spec, "input_order": {"required": ["a"], "optional": ["x", "b"]}, "output": []}}
    assert inputs(flow([node(1, "K", widgets_values=[1, 2, 3])], []), info) == {"1": {"a": 1, "b": 2, "c": 3}}


def test_names_where_positions_cannot_be_read(flow, node):
    """A class that gained a widget since the file was saved: the named map still fits, and defaults fill the rest."""
    info = {"K": {"input": {"required": {"new": ["INT", {"default": 9}], "a": ["INT"], "b": ["INT"]}}, "output": []}}
    saved = node(1, "K", widgets_values=[1, 2], widgets_values_named={"a": 1, "b": 2})
    assert inputs(flow([saved], []), info) == {"1": {"new": 9, "a": 1, "b": 2}}
    saved = node(1, "K", widgets_values=[7, 8, 6], widgets_values_named={"new": 1, "a": 1, "b": 2})
    assert inputs(flow([saved], []), info) == {"1": {"new": 7, "a": 8, "b": 6}}


@pytest.mark.parametrize(
    ("text", "results"),
    [
        ("a {x|y} b", {"a x b", "a y b"}),
        ("{a|{b|c}} // gone\nd /* e\nf */g", {"a \nd g", "b \nd g", "c \nd g"}),
        (r"\{a\|b\}", {"{a|b}"}),
        ("{|}open {x", {"open x"}),
        ("http://x", {"http:"}),
        ("", {""}),
    ],
)
def test_dynamic_prompts(flow, node, text, results):
    """{a|b} is chosen and comments go, as in the frontend; the default generator makes it repeatable."""
    workflow = flow([node(1, "Text", widgets_values=[text])], [])
    found = {to_prompt(workflow, INFO, random.Random(seed))["1"]["inputs"]["text"] for seed in range(40)}
    assert found == results
    assert to_prompt(workflow, INFO) == to_prompt(workflow, INFO)


def test_deeply_nested_choices_are_an_error(flow, node):
    """A hostile text must not exhaust the stack."""
    with pytest.raises(WorkflowError, match="nested"):
        to_prompt(flow([node(1, "Text", widgets_values=["{" * 5000])], []), INFO)


# --- primitives


def test_primitive_writes_into_every_target(flow, node):
    """Its value goes into each linked widget, even if it is muted; the link itself is gone."""
    primitive = node(1, "PrimitiveNode", outputs=["INT"], mode=2, widgets_values=[33, "fixed"])
    nodes = [primitive, *(node(i, "Pass", {"steps": i}, widgets_values=[1.0, 4]) for i in (2, 3))]
    found = inputs(flow(nodes, [[2, 1, 0, 2, 2, "INT"], [3, 1, 0, 3, 2, "INT"]]))
    assert found == {"2": {"gain": 1.0, "steps": 33}, "3": {"gain": 1.0, "steps": 33}}


def test_primitive_saved_for_another_type(flow, node):
    """Then the frontend makes it anew with the value of the first target."""
    primitive = node(1, "PrimitiveNode", outputs=["STRING"], widgets_values=["text"])
    nodes = [primitive, node(2, "Pass", {"steps": 2}, widgets_values=[1.0, 4])]
    assert inputs(flow(nodes, [[2, 1, 0, 2, 2, "INT"]]))["2"]["steps"] == 4


def test_primitive_through_a_reroute_reaches_nothing(flow, node):
    """The frontend writes into direct targets only; a reroute has no widget."""
    nodes = [
        node(1, "PrimitiveNode", outputs=["INT"], widgets_values=[33]),
        *(node(2, "Reroute", {"": 1}), node(3, "Pass", {"steps": 2}, widgets_values=[1.0, 4])),
    ]
    assert inputs(flow(nodes, [[1, 1, 0, 2, 0, "INT"], [2, 2, 0, 3, 2, "INT"]]))["3"]["steps"] == 4


# --- subgraphs


@pytest.fixture
def inner(node, subgraph):
    """A subgraph: value in -> Pass 2 (steps promoted) -> value out, with a reroute on the way."""
    nodes = [node(2, "Pass", {"value": 1, "steps": 2}, widgets_values=[2.0, 6]), node(3, "Reroute", {"": 3})]
    links = [
        *((1, -10, 0, 2, 0, "FLOAT"), (2, -10, 1, 2, 1, "INT")),
        *((3, 2, 0, 3, 0, "FLOAT"), (4, 3, 0, -20, 0, "FLOAT")),
    ]
    return subgraph("inner", nodes, links, [("value", "FLOAT"), ("steps", "INT")], [("value", "FLOAT")])


@pytest.fixture
def outer(node, subgraph):
    """A subgraph around an instance of `inner` that promotes its `steps` once more."""
    nodes = [node(7, "inner", {"value": 1, "steps": 2}, ["FLOAT"], widgets_values=[7])]
    links = [(1, -10, 0, 7, 0, "FLOAT"), (2, -10, 1, 7, 1, "INT"), (3, 7, 0, -20, 0, "FLOAT")]
    return subgraph("outer", nodes, links, [("value", "FLOAT"), ("steps", "INT")], [("value", "FLOAT")])


def around(flow, node, kind, definitions, mode=0, **more):
    """Make 1 -> instance 5 -> Sink 6."""
    nodes = [
        node(1, "Make", outputs=["FLOAT"]),
        node(5, kind, {"value": 1, "steps": None}, ["FLOAT"], mode, **more),
        node(6, "Sink", {"value": 2}),
    ]
    return flow(nodes, [[1, 1, 0, 5, 0, "FLOAT"], [2, 5, 0, 6, 0, "FLOAT"]], *definitions)


def test_promoted_widget_two_deep(flow, node, inner, outer):
    """The outermost instance's value wins over those further in; links pass both walls and the reroute."""
    found = inputs(around(flow, node, "outer", (inner, outer), widgets_values=[21]))
    assert found["5:7:2"] == {"gain": 2.0, "steps": 21, "value": ["1", 0]}
    assert found["6"] == {"value": ["5:7:2", 0]}
    assert set(found) == {"1", "6", "5:7:2"}


def test_promoted_widget_without_a_value(flow, node, inner, outer):
    """An instance saved without a value shows the next inner one's."""
    assert inputs(around(flow, node, "outer", (inner, outer)))["5:7:2"]["steps"] == 7
    assert inputs(around(flow, node, "inner", (inner,)))["5:2"]["steps"] == 6


def test_definitions_inside_definitions(flow, node, inner, outer):
    """The schema allows nested lists of definitions."""
    found = inputs(around(flow, node, "outer", (outer | {"definitions": {"subgraphs": [inner]}},), widgets_values=[21]))
    assert found["5:7:2"]["steps"] == 21


def test_two_instances_have_their_own_values(flow, node, inner):
    """One definition, two instances, two values."""
    nodes = [node(1, "inner", widgets_values=[1]), node(2, "inner", widgets_values=[2])]
    found = inputs(flow(nodes, [], inner))
    assert (found["1:2"]["steps"], found["2:2"]["steps"]) == (1, 2)


def test_linked_promoted_widget(flow, node, inner):
    """A link into an instance's widget input wins over the value it shows."""
    nodes = [node(1, "Make"), node(5, "inner", {"value": None, "steps": 1}, widgets_values=[21])]
    assert inputs(flow(nodes, [[1, 1, 1, 5, 1, "INT"]], inner))["5:2"]["steps"] == ["1", 1]


def test_primitive_into_a_promoted_widget(flow, node, inner):
    """The frontend writes it into the instance, whose link then hides it: the inner widget's own value is queued."""
    nodes = [
        node(1, "PrimitiveNode", outputs=["INT"], widgets_values=[33]),
        node(5, "inner", {"value": None, "steps": 1}, widgets_values=[21]),
    ]
    assert inputs(flow(nodes, [[1, 1, 0, 5, 1, "INT"]], inner))["5:2"]["steps"] == 6


def test_primitive_inside_a_subgraph(flow, node, subgraph):
    """It works there as on the root."""
    nodes = [
        node(1, "PrimitiveNode", outputs=["INT"], widgets_values=[33]),
        node(2, "Pass", {"steps": 1}, widgets_values=[2.0, 6]),
    ]
    definition = subgraph("s", nodes, [(1, 1, 0, 2, 2, "INT")])
    assert inputs(flow([node(5, "s")], [], definition))["5:2"]["steps"] == 33


def test_muted_and_bypassed_instances(flow, node, inner):
    """Neither is expanded; a bypassed one passes its input through."""
    assert inputs(around(flow, node, "inner", (inner,), mode=2)) == {"1": {"seed": 0}, "6": {}}
    assert inputs(around(flow, node, "inner", (inner,), mode=4)) == {"1": {"seed": 0}, "6": {"value": ["1", 0]}}


def test_muted_and_bypassed_nodes_inside(flow, node, inner):
    """Modes work inside a subgraph; a bypassed inner node passes the link from outside."""
    inner["nodes"][0]["mode"] = 4
    assert inputs(around(flow, node, "inner", (inner,)))["6"] == {"value": ["1", 0]}
    inner["nodes"][0]["mode"] = 2
    assert inputs(around(flow, node, "inner", (inner,)))["6"] == {}


def test_nested_bypassed_instance_is_expanded_beside_the_way(flow, node, inner, outer):
    """As in the frontend: deeper than the root, an instance's mode steers links, not expansion."""
    outer["nodes"][0]["mode"] = 4
    found = inputs(around(flow, node, "outer", (inner, outer), widgets_values=[21]))
    assert found["6"] == {"value": ["1", 0]}
    assert found["5:7:2"]["value"] == ["1", 0]


@pytest.mark.parametrize("name", ["steps", "2: steps"])
def test_old_proxy_widgets_two_deep(flow, node, inner, outer, name):
    """Files older than promoted inputs list inner widgets in properties.proxyWidgets."""
    for definition in (inner, outer):
        definition["inputs"].pop()
        definition["links"] = [link for link in definition["links"] if link["origin_slot"] != 1]
    outer["nodes"][0]["properties"] = {"proxyWidgets": [["2", "gain"], ["2", "steps"]]}
    outer["nodes"][0]["widgets_values"] = [5.0, 8]
    assert inputs(around(flow, node, "outer", (inner, outer)))["5:7:2"] == {"gain": 5.0, "steps": 8, "value": ["1", 0]}
    proxied = {"properties": {"proxyWidgets": [["7", name]]}, "widgets_values": [30]}
    assert inputs(around(flow, node, "outer", (inner, outer), **proxied))["5:7:2"]["steps"] == 30


def test_old_proxy_widget_that_is_an_input_too(flow, node, inner):
    """The proxied value goes to the input that shows the widget; a proxied primitive feeds its targets."""
    proxied = {"properties": {"proxyWidgets": [["2", "gain"], ["2", "steps"], ["-1", "steps"]]}}
    found = inputs(around(flow, node, "inner", (inner,), widgets_values=[5.0, 8], **proxied))
    assert found["5:2"] == {"gain": 5.0, "steps": 8, "value": ["1", 0]}


def test_subgraph_input_wired_straight_to_its_output(flow, node, subgraph):
    """A wire through and through."""
    definition = subgraph("s", [], [(1, -10, 0, -20, 0, "FLOAT")], [("value", "FLOAT")], [("value", "FLOAT")])
    assert inputs(around(flow, node, "s", (definition,)))["6"] == {"value": ["1", 0]}


def test_subgraph_in_itself_is_an_error(flow, node, subgraph):
    """Directly or through another."""
    a, b = (subgraph(name, [node(1, other)], []) for name, other in (("a", "b"), ("b", "a")))
    with pytest.raises(WorkflowError, match="contains itself"):
        to_prompt(flow([node(5, "a")], [], a, b), INFO)


def test_subgraphs_that_multiply_are_an_error(flow, node, subgraph):
    """Twenty levels of ten instances each are 10**20 nodes."""
    levels = [subgraph(f"s{i}", [node(k, f"s{i + 1}") for k in range(10)], []) for i in range(20)]
    with pytest.raises(WorkflowError, match="more than 100000 nodes"):
        to_prompt(flow([node(1, "s0")], [], *levels), INFO)
    levels = [
        subgraph(f"s{i}", [node(1, f"s{i + 1}", {"v": 1})], [(1, -10, 0, 1, 0, "*")], [("v", "*")]) for i in range(2000)
    ]
    with pytest.raises(WorkflowError, match="nested more than 100 deep"):
        to_prompt(flow([node(1, "s0")], [], *levels), INFO)


# --- sizes and junk


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


# --- numbers from primitives, kinds of inputs that change, classes that are not installed, bombs


def spec_info(**specs):
    return {"Pass": {"input": {"required": specs}, "output": [], "output_node": True}}


@pytest.mark.parametrize(
    ("spec", "value", "sent"),
    [
        # as comfyui-frontend-package 1.58.1 has it: onValueChange of useIntWidget and useFloatWidget
        (("INT", {"min": 0, "max": 100}), 3.5, 4),
        (("INT", {"min": 0, "max": 100}), 2.4, 2),
        (("INT", {"min": 0, "max": 100}), -0.5, 0),
        (("INT", {"min": 64, "max": 4096, "step": 8}), 513, 512),
        (("INT", {"min": 64, "max": 4096, "step": 8}), 516, 520),
        (("INT", {"min": 1, "max": 4096, "step": 8}), 14, 17),
        (("INT", {"min": 0, "max": 2**64 - 1}), 9011990233476201805, 9011990233476201805),
        (("FLOAT", {"min": 0.0, "max": 100.0, "step": 0.1}), 1000.0, 100.0),
        (("FLOAT", {"min": 0.0, "max": 100.0, "step": 0.1}), -1, 0.0),
        (("FLOAT", {"min": 0.0, "max": 100.0, "step": 0.1}), 7.26, 7.3),
        (("FLOAT", {"min": 0.0, "max": 1.0, "step": 0.01, "round": False}), 0.123, 0.12),
        (("FLOAT", {"min": 0.0, "max": 1.0, "step": 0.01, "round": 0.001}), 0.1239, 0.12),
        (("FLOAT", {"min": 0.0, "max": 10.0, "step": 1.0}), 20.25, 20.25),  # no digits, no rounding
        (("FLOAT", {"min": 0.0, "max": 10.0}), 3.14, 3.1),
        (("STRING", {}), "text", "text"),
        (("BOOLEAN", {}), True, True),
        (("INT", {}), "no number", "no number"),
    ],
)
def test_primitive_numbers_are_rounded_as_by_the_frontend(flow, node, spec, value, sent):
    """The target's widget takes the number as if it had been typed in: rounded, and a FLOAT kept within its limits."""
    nodes = [
        node(1, "PrimitiveNode", outputs=[spec[0]], widgets_values=[value, "fixed"]),
        node(2, "Pass", {"x": 1}, widgets_values=[0]),
    ]
    made = to_prompt(flow(nodes, [[1, 1, 0, 2, 0, spec[0]]]), spec_info(x=spec))["2"]["inputs"]["x"]
    assert made == sent
    assert type(made) is type(sent) or isinstance(sent, float)


DYNAMIC = {
    "mode": (
        "COMFY_DYNAMICCOMBO_V3",
        {
            "options": [
                {"key": "none", "inputs": {}},
                {
                    "key": "scale",
                    "inputs": {
                        "required": {"factor": ("FLOAT", {"default": 2.0}), "image": ("IMAGE", {})},
                        "optional": {"seed": ("INT", {"control_after_generate": True})},
                    },
                },
                {
                    "key": "deep",
                    "inputs": {
                        "required": {
                            "kind": ("COMFY_DYNAMICCOMBO_V3", {"options": [
                                {"key": "a", "inputs": {"required": {"n": ("INT", {"default": 7})}}}]}),
                        }
                    },
                },
            ]
        },
    ),
    "after": ("INT", {"default": 5}),
}  # fmt: skip


@pytest.mark.parametrize(
    ("values", "sent"),
    [
        (["none", 3], {"mode": "none", "after": 3}),
        (["scale", 1.5, 11, "fixed", 3], {"mode": "scale", "mode.factor": 1.5, "mode.seed": 11, "after": 3}),
        (["deep", "a", 9, 3], {"mode": "deep", "mode.kind": "a", "mode.kind.n": 9, "after": 3}),
        (["deep"], {"mode": "deep", "mode.kind": "a", "mode.kind.n": 7, "after": 5}),
        ([], {"mode": "none", "after": 5}),
        ({"mode": "scale", "mode.factor": 9.0, "after": 2},
         {"mode": "scale", "mode.factor": 9.0, "mode.seed": 0, "after": 2}),
    ],
)  # fmt: skip
def test_combos_that_bring_inputs_along(flow, node, values, sent):
    """The values behind the combo belong to the chosen option's inputs, and those of the next widgets do not shift."""
    made = to_prompt(flow([node(1, "Pass", widgets_values=values)], []), spec_info(**DYNAMIC))
    assert made["1"]["inputs"] == sent


def test_sockets_of_a_combo_that_brings_inputs_along(flow, node):
    """Links to its inner inputs are kept, to sockets as to widgets."""
    slots = [
        {"name": "mode.image", "type": "IMAGE", "link": 1},
        {"name": "mode.factor", "type": "FLOAT", "widget": {"name": "mode.factor"}, "link": 2},
    ]
    nodes = [node(1, "Source", outputs=["IMAGE", "FLOAT"]), node(2, "Pass", slots, widgets_values=["scale", 1.0, 1])]
    info = spec_info(**DYNAMIC) | {"Source": {"input": {}, "output": ["IMAGE", "FLOAT"]}}
    made = to_prompt(flow(nodes, [[1, 1, 0, 2, 0, "IMAGE"], [2, 1, 1, 2, 1, "FLOAT"]]), info)["2"]["inputs"]
    assert (made["mode.image"], made["mode.factor"]) == (["1", 0], ["1", 1])


@pytest.mark.parametrize(
    "spec",
    [
        ("COMFY_DYNAMICSLOT_V3", {}),
        ("COMFY_DYNAMICGROUP_V3", {}),
        ("COMFY_SOMETHINGNEW_V3", {}),
        ("COMFY_AUTOGROW_V3", {"template": {"input": {"required": {"n": ("INT", {})}}}}),
        (
            "COMFY_DYNAMICCOMBO_V3",
            {"options": [{"key": "a", "inputs": {"required": {"s": ("COMFY_DYNAMICSLOT_V3", {})}}}]},
        ),
    ],
)
def test_kinds_of_inputs_that_are_not_read(flow, node, spec):
    """They are named: left out, they would shift the values of all widgets behind them."""
    workflow = flow([node(4, "Pass", widgets_values=[1, 2])], [])
    with pytest.raises(WorkflowError, match=r"^node 4 \(Pass\): input 'x.*' is of the kind COMFY_\w+_V3, which is not"):
        to_prompt(workflow, spec_info(x=spec, y=("INT", {})))


@pytest.mark.parametrize(
    "spec",
    [("COMFY_MATCHTYPE_V3", {}), ("COMFY_AUTOGROW_V3", {"template": {"input": {"required": {"i": ("IMAGE", {})}}}})],
)
def test_kinds_of_sockets_that_shift_nothing(flow, node, spec):
    nodes = [node(1, "Source", outputs=["IMAGE"]), node(2, "Pass", {"x.i0": 1}, widgets_values=[4])]
    info = spec_info(x=spec, y=("INT", {})) | {"Source": {"input": {}, "output": ["IMAGE"]}}
    made = to_prompt(flow(nodes, [[1, 1, 0, 2, 0, "IMAGE"]]), info)["2"]["inputs"]
    assert made == {"y": 4, "x.i0": ["1", 0]}


def test_values_of_a_class_that_is_not_installed(flow, node):
    """Named by their sockets where a newer file lists those; otherwise the loss is told, with node and number."""
    widget = [
        {"name": n, "type": t, "widget": {"name": n}, "link": None} for n, t in (("seed", "INT"), ("text", "STRING"))
    ]
    nodes = [
        node(1, "Gone", widget, widgets_values=[7, "randomize", "a cat"]),
        node(2, "Gone", widgets_values=[7, "a cat"]),
        node(3, "Gone", widget, widgets_values=[7]),
        node(4, "Gone", widgets_values={"x": 1}),
        node(5, "Gone"),
        node(6, "Note", widgets_values=["hello"]),
    ]
    said = []
    made = to_prompt(flow(nodes, []), {}, warn=said.append)
    assert made["1"]["inputs"] == {"seed": 7, "text": "a cat"}
    assert made["4"]["inputs"] == {"x": 1}
    assert said == [
        "node 2 (Gone): its class is not installed, so its 2 values have no names and are left out",
        "node 3 (Gone): its class is not installed, so its 1 values have no names and are left out",
    ]


def test_a_bomb_of_subgraphs(flow, node, subgraph, monkeypatch):
    """Definitions that double 25 times are refused from their sizes alone, before one of them is expanded."""
    from comfyui_rollout.graph.workflow.subgraphs import Scope

    kinds = [f"level{number}" for number in range(26)]
    inner = [subgraph(kinds[0], [node(1, "Pass")], [])]
    inner += [subgraph(kinds[n], [node(1, kinds[n - 1]), node(2, kinds[n - 1])], []) for n in range(1, 26)]
    monkeypatch.setattr(Scope, "child", lambda self, node: pytest.fail("expanded"))
    with pytest.raises(WorkflowError, match=r"^workflow: its subgraphs expand to more than 100000 nodes$"):
        to_prompt(flow([node(1, kinds[-1])], [], *inner), {})
