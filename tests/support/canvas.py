"""What a workflow must be like to be readable on the canvas."""

import json
from itertools import combinations

TITLE_BAR = 30


def rectangle(node):
    """(left, top, right, bottom) of a saved node, with its title bar."""
    (x, y), (width, height) = node["pos"], node["size"]
    return x, y - TITLE_BAR, x + width, y + height


def check_canvas(workflow):
    """No node lies on another, every link runs to the right, and ids and links agree with each other."""
    for first, second in combinations(workflow["nodes"], 2):
        left, top, right, bottom = rectangle(first)
        x1, y1, x2, y2 = rectangle(second)
        assert right < x1 or x2 < left or bottom < y1 or y2 < top, (first["type"], second["type"])
    nodes = {node["id"]: node for node in workflow["nodes"]}
    assert len(nodes) == len(workflow["nodes"])
    for link, origin, slot, target, place, _ in workflow["links"]:
        assert rectangle(nodes[origin])[2] < rectangle(nodes[target])[0]
        assert nodes[origin]["order"] < nodes[target]["order"]
        assert link in nodes[origin]["outputs"][slot]["links"]
        assert nodes[target]["inputs"][place]["link"] == link
    assert [link[0] for link in workflow["links"]] == list(range(1, workflow["last_link_id"] + 1))
    assert workflow["last_node_id"] >= max((node for node in nodes if isinstance(node, int)), default=0)
    json.dumps(workflow, allow_nan=False)
