/** Nodes of a graph by the ids that a server uses: ``7``, or ``5:7`` for node 7 inside of the subgraph node 5. */

export const ROLLOUT = "Rollout";
export const TRAINER = "RolloutOptimizerStep";

/** Whether a class of nodes is of our pack. */
export const isOurs = (classId) => /^Rollout/.test(classId ?? "");

/** @returns the node, or undefined */
export function nodeAt(root, id) {
  let graph = root, node;
  for (const part of String(id).split(":")) {
    node = graph?.getNodeById(part) ?? graph?.getNodeById(Number(part));
    if (!node) return undefined;
    graph = node.subgraph;
  }
  return node;
}

/** All nodes with their ids, those inside of subgraphs too. */
export function* nodesOf(root, prefix = "") {
  for (const node of root?.nodes ?? []) {
    const id = `${prefix}${node.id}`;
    yield [id, node];
    if (node.subgraph) yield* nodesOf(node.subgraph, `${id}:`);
  }
}

/** The ids of all nodes of a class. */
export function idsOf(root, classId) {
  return [...nodesOf(root)].filter(([, node]) => node.comfyClass === classId).map(([id]) => id);
}
