"""What a workflow must be like to be readable on the canvas."""

import json
from itertools import combinations, pairwise

TITLE_BAR = 30
SOCKET, ROW = 14, 20  # the first socket below a node's top, and from one to the next


def rectangle(node):
    """(left, top, right, bottom) of a saved node, with its title bar."""
    (x, y), (width, height) = node["pos"], node["size"]
    return x, y - TITLE_BAR, x + width, y + height


def path_of(link, workflow):
    """The points through which a link runs, in its reroutes."""
    nodes = {node["id"]: node for node in workflow["nodes"]}
    number, origin, slot, target, place, _ = link
    joints = {joint["id"]: joint for joint in workflow["extra"].get("reroutes", ())}
    last = {end["id"]: end["parentId"] for end in workflow["extra"].get("linkExtensions", ())}
    (left, top), (x, y) = nodes[origin]["pos"], nodes[target]["pos"]
    points, joint = [(x, y + SOCKET + ROW * place)], last.get(number)
    while joint is not None:
        assert number in joints[joint]["linkIds"]
        points.append(tuple(joints[joint]["pos"]))
        joint = joints[joint].get("parentId")
    return [*points, (left + nodes[origin]["size"][0], top + SOCKET + ROW * slot)][::-1]


def crosses(begin, end, box):
    """Whether the line from ``begin`` to ``end`` has a point inside of the box."""
    for step in range(1, 100):
        x, y = (a + (b - a) * step / 100 for a, b in zip(begin, end, strict=True))
        if box[0] < x < box[2] and box[1] < y < box[3]:
            return True
    return False


def check_wires(workflow):
    """No wire runs under a node: through its joints, whichever node one looks at."""
    boxes = [(node["type"], rectangle(node)) for node in workflow["nodes"]]
    for link in workflow["links"]:
        for begin, end in pairwise(path_of(link, workflow)):
            assert [kind for kind, box in boxes if crosses(begin, end, box)] == [], (link, begin, end)


def check_canvas(workflow):
    """No node lies on another or on a wire, every link runs to the right, and ids and links agree with each other."""
    check_wires(workflow)
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
