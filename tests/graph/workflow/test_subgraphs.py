"""Subgraphs, expanded as the official frontend does: their values, their modes, and bombs of them."""

import pytest
from comfyui_rollout.graph import WorkflowError, to_prompt
from saved_flows import INFO, inputs


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


def test_a_bomb_of_subgraphs(flow, node, subgraph, monkeypatch):
    """Definitions that double 25 times are refused from their sizes alone, before one of them is expanded."""
    from comfyui_rollout.graph.workflow.subgraphs import Scope

    kinds = [f"level{number}" for number in range(26)]
    inner = [subgraph(kinds[0], [node(1, "Pass")], [])]
    inner += [subgraph(kinds[n], [node(1, kinds[n - 1]), node(2, kinds[n - 1])], []) for n in range(1, 26)]
    monkeypatch.setattr(Scope, "child", lambda self, node: pytest.fail("expanded"))
    with pytest.raises(WorkflowError, match=r"^workflow: its subgraphs expand to more than 100000 nodes$"):
        to_prompt(flow([node(1, kinds[-1])], [], *inner), {})
