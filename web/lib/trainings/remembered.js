/** What a page keeps over a reload: which run a node's pictures came from. The pictures stay on the server. */

const key = (workflowId) => `rollout.runs.${workflowId}`;

/** @returns {Record<string, {run: string, total: number, films: object[]}>} by node */
export function recall(storage, workflowId) {
  try {
    const found = JSON.parse(storage.getItem(key(workflowId)) ?? "{}");
    return found && typeof found === "object" ? found : {};
  } catch {
    return {};
  }
}

/** @param {import("./recordings.js").Recording} recording */
export function remember(storage, workflowId, node, { run, total, films }) {
  const known = recall(storage, workflowId);
  known[node] = { run, total, films };
  try {
    storage.setItem(key(workflowId), JSON.stringify(known));
  } catch {
    // The browser's storage is full or closed to us: then a reload forgets.
  }
}
