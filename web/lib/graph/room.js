/** Nodes that grow push those below them down, so that nothing is covered; the frames around them grow along. */

const TITLE = 30, GAP = 30; // pixels: the title bar lies over a node's place
const BESIDE = 50; // where the joints of a node's wires are
const FRAME = 15;

const overlap = (one, other) => one.pos[0] < other.pos[0] + other.size[0] && other.pos[0] < one.pos[0] + one.size[0];

/**
 * Stands the nodes of each column apart where one covers the next, and their frames around them.
 * @param {{nodes: object[], groups?: object[], reroutes?: Map}} graph the frontend's
 * @param {(node: object) => number} heightOf as the node is drawn, without its title
 * @returns {boolean} whether anything was moved
 */
export function makeRoom({ nodes, groups = [], reroutes = new Map() }, heightOf = ({ size }) => size[1]) {
  const bottomOf = (node) => node.pos[1] + heightOf(node);
  const members = groups.map((group) => [group, nodes.filter((node) => isWithin(node, group))]);
  const joints = new Map(nodes.map((node) => [node, jointsOf(node, reroutes)]));
  const sorted = [...nodes].sort((one, other) => one.pos[1] - other.pos[1]);
  let isMoved = false;
  for (const [place, node] of sorted.entries()) {
    const above = Math.max(...sorted.slice(0, place).filter((other) => overlap(other, node)).map(bottomOf));
    if (above <= node.pos[1] - TITLE) continue; // a gap may be small, as long as nothing is covered
    const by = above + GAP + TITLE - node.pos[1];
    for (const joint of joints.get(node)) joint.pos = [joint.pos[0], joint.pos[1] + by];
    node.pos = [node.pos[0], node.pos[1] + by];
    isMoved = true;
  }
  for (const [group, inside] of members) {
    const height = Math.max(...inside.map(bottomOf)) + FRAME - group.pos[1];
    if (height > group.size[1]) group.size = [group.size[0], height];
  }
  return isMoved;
}

/** A frame is around a node that begins in it: it may have grown beyond its end already. */
function isWithin({ pos, size }, group) {
  const [left, top] = group.pos;
  return pos[0] >= left && pos[0] + size[0] <= left + group.size[0] && pos[1] >= top && pos[1] <= top + group.size[1];
}

/** The joints beside a node, through which its wires come in and go out. */
function jointsOf({ pos, size }, reroutes) {
  return [...reroutes.values()].filter(({ pos: [x, y] }) =>
    y >= pos[1] && y <= pos[1] + size[1] && x > pos[0] - BESIDE && x < pos[0] + size[0] + BESIDE);
}
