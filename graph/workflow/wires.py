"""Where long wires run: over the graph and down beside their nodes, for the canvas draws every wire under the nodes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

# Sizes in pixels of the canvas, as the frontend draws nodes.
FIRST_SLOT, SLOT = 14, 20  # the middle of a node's first socket below the node's top, and from one socket to the next
OVER = 84  # from the nodes' tops to the first lane: their titles and the titles of groups lie between
LANE = 22  # from one lane to the next
BESIDE, STEP, WAYS = 16, 6, 4  # from a node to the first vertical way, from one to the next, and how many there are
LONG, TALL = 260, 600  # a curve to a lane, or to the next column, that is higher than this would swell under the nodes

Point = tuple[float, float]


@dataclass
class _Joint:
    """A point through which wires run: what the frontend calls a reroute."""

    id: int
    parent: int | None
    pos: Point
    links: list[int] = field(default_factory=list)


def wires(nodes: Sequence[Mapping[str, Any]], links: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """``reroutes`` and ``linkExtensions`` for a workflow's ``extra``: nothing else is changed.

    A wire to the next column runs straight, between the columns if it is a long way up or down. The others of one
    output share a lane over all nodes, from which each comes down left of the column that it leads to.
    """
    by_id = {node["id"]: node for node in nodes}
    lefts = sorted({node["pos"][0] for node in nodes})
    column = {node_id: lefts.index(node["pos"][0]) for node_id, node in by_id.items()}
    far: dict[tuple[Any, int], list[Sequence[Any]]] = {}
    joints: list[_Joint] = []
    ids = count(1)
    for link in links:
        number, source, output, target, place, *_ = link
        if column[target] - column[source] > 1:
            far.setdefault((source, output), []).append(link)
        else:
            begin = _slot(by_id[source], output, by_id[source]["size"][0])
            joints += _between(ids, begin, _slot(by_id[target], place, 0), number)
    top = min((node["pos"][1] for node in nodes), default=0) - OVER
    order = sorted(far, key=lambda key: (-column[key[0]], by_id[key[0]]["pos"][1], key[1]))
    for lane, (source, output) in enumerate(order):
        taken = sorted(far[source, output], key=lambda link: (column[link[3]], by_id[link[3]]["pos"][1], link[4]))
        ends = [(link[0], _slot(by_id[link[3]], link[4], 0)) for link in taken]
        begin = _slot(by_id[source], output, by_id[source]["size"][0])
        joints += _lane(ids, begin, ends, top - LANE * lane, BESIDE + STEP * (lane % WAYS))
    if not joints:
        return {}
    last = {link: joint.id for joint in joints for link in joint.links}
    return {
        "reroutes": [
            {"id": joint.id, **({"parentId": joint.parent} if joint.parent else {}), "pos": list(joint.pos)}
            | {"linkIds": joint.links}
            for joint in joints
        ],
        "linkExtensions": [{"id": link, "parentId": last[link]} for link in sorted(last)],
    }


def _slot(node: Mapping[str, Any], place: int, across: float) -> Point:
    x, y = node["pos"]
    return x + across, y + FIRST_SLOT + SLOT * place


def _between(ids: Iterator[int], begin: Point, end: Point, link: int) -> Iterator[_Joint]:
    """The joints of a wire to the next column."""
    (left, y), (right, target) = begin, end
    if abs(target - y) > TALL:
        middle = (left + right) / 2
        yield (joint := _Joint(next(ids), None, (middle, y), [link]))
        yield _Joint(next(ids), joint.id, (middle, target), [link])


def _lane(
    ids: Iterator[int], begin: Point, ends: Sequence[tuple[int, Point]], lane: float, beside: float
) -> Iterator[_Joint]:
    """The joints of one output's wires: up beside its node, along the lane, down beside each target."""
    waiting = [link for link, _ in ends]
    parent = None
    x, y = begin
    corners = [(x + beside, y)] if y - lane > LONG else []
    for pos in [*corners, (x + beside, lane)]:
        yield (joint := _Joint(next(ids), parent, pos, list(waiting)))
        parent = joint.id
    at: dict[float, int] = {}
    for link, (x, y) in ends:
        way = x - beside
        if way not in at:
            yield (joint := _Joint(next(ids), parent, (way, lane), list(waiting)))
            at[way] = parent = joint.id
        if y - lane > LONG:
            yield _Joint(next(ids), at[way], (way, y), [link])
        waiting.remove(link)
