"""The links of one level, also where node and table disagree."""

from saved_flows import inputs


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
