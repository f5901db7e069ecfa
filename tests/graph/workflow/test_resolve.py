"""Where a value really comes from: through muted and bypassed nodes, reroutes and primitives."""

import pytest
from comfyui_rollout.graph import WorkflowError, to_prompt
from saved_flows import INFO, inputs


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
