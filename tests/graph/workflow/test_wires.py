"""Wires run beside and over the nodes, never under one, on every template as the machine lays them."""

from pathlib import Path

import pytest
from canvas import check_wires
from comfyui_rollout.graph import load
from comfyui_rollout.graph.workflow.wires import wires


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[3] / "workflows").glob("*.json")), ids=lambda p: p.stem)
def test_no_wire_of_a_template_runs_under_a_node(path):
    """They are drawn by hand, and their wires laid as the machine lays them."""
    workflow = load(path)
    check_wires(workflow)
    nodes = [node for node in workflow["nodes"] if node["type"] != "MarkdownNote"]
    laid = wires(nodes, workflow["links"])
    assert laid == {name: workflow["extra"][name] for name in laid}


def test_wires_of_one_output_share_a_lane():
    """It goes up once, and down beside each column that it leads to; a neighbour is reached directly."""
    nodes = [{"id": n, "pos": [370 * column, y], "size": [320, 100]} for n, column, y in NODES]
    links = [[1, 1, 0, 2, 0, "X"], [2, 1, 0, 3, 0, "X"], [3, 1, 0, 4, 1, "X"], [4, 1, 0, 5, 0, "X"]]
    laid = wires(nodes, links)
    assert [(joint["pos"], joint.get("parentId"), joint["linkIds"]) for joint in laid["reroutes"]] == [
        ([336, -4], None, [2, 3, 4]),
        ([724, -4], 1, [2, 3, 4]),
        ([724, 514], 2, [3]),
        ([1094, -4], 2, [4]),
    ]
    assert laid["linkExtensions"] == [{"id": link, "parentId": joint} for link, joint in ((2, 2), (3, 3), (4, 4))]
    assert wires(nodes, links[:1]) == {}
    nodes[1]["pos"][1] = 900  # a curve that high would swell under its neighbours
    assert [joint["pos"] for joint in wires(nodes, links[:1])["reroutes"]] == [[345, 94], [345, 914]]


NODES = ((1, 0, 80), (2, 1, 80), (3, 2, 80), (4, 2, 480), (5, 3, 80))
"""Id, column and top."""
