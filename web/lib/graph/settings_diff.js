/** What differs between the settings of two runs, in the words of their nodes. */

import { t } from "../language/words.js";

const LOOKS = new Set(["preview_every", "sample_every", "checkpoint_every", "keep_checkpoints", "run_name", "resume", "folder", "name"]);

/**
 * @param {Record<string, any>} before graphs as they were executed
 * @param {Record<string, any>} after
 * @returns {string[]} ``rank 16 → 32``; what only names or shows something is left out
 */
export function differences(before, after) {
  const told = [];
  for (const [id, node] of Object.entries(after)) {
    const earlier = before[id]?.class_type === node.class_type ? before[id] : null;
    if (!earlier) {
      told.push(`+ ${titleOf(node)}`);
      continue;
    }
    for (const [name, value] of Object.entries(node.inputs ?? {})) {
      const was = earlier.inputs?.[name];
      if (Array.isArray(value) || Array.isArray(was) || LOOKS.has(name) || was === undefined || was === value) continue;
      told.push(`${name} ${shown(was)} → ${shown(value)}`);
    }
  }
  for (const [id, node] of Object.entries(before)) if (after[id]?.class_type !== node.class_type) told.push(`− ${titleOf(node)}`);
  return told;
}

/**
 * By which settings several runs can be told from one another.
 * @param {Map<string, Record<string, any>>} prompts graphs as they were executed, by run
 * @returns {Map<string, string[]>} by run: ``rank 16``, ``without Rollout``; the same settings in the same order for all
 */
export function settingsApart(prompts) {
  const graphs = [...prompts.values()], told = new Map([...prompts.keys()].map((run) => [run, []]));
  const nodes = new Map(graphs.toReversed().flatMap((graph) => Object.entries(graph).map(([id, node]) => [`${id} ${node.class_type}`, [id, node]])));
  const has = (graph, [id, node]) => graph[id]?.class_type === node.class_type;
  const apart = [];
  for (const [id, node] of nodes.values()) {
    if (graphs.every((graph) => has(graph, [id, node]))) apart.push(...inputsApart(graphs, id).map((name) => [id, name]));
    else for (const [run, graph] of prompts) told.get(run).push(has(graph, [id, node]) ? t("with {node}", { node: titleOf(node) }) : t("without {node}", { node: titleOf(node) }));
  }
  const isPlain = (name) => apart.filter(([, other]) => other === name).length === 1;
  for (const [run, graph] of prompts) {
    const values = apart.map(([id, name]) => `${isPlain(name) ? "" : `${titleOf(graph[id])} `}${name} ${shown(graph[id].inputs?.[name])}`);
    told.get(run).unshift(...values);
  }
  return told;
}

/** The names of a node's inputs that are not the same in all graphs; wires and what only names or shows are left out. */
function inputsApart(graphs, id) {
  const names = new Set(graphs.flatMap((graph) => Object.keys(graph[id].inputs ?? {})));
  return [...names].filter((name) => {
    const values = graphs.map((graph) => graph[id].inputs?.[name]);
    return !LOOKS.has(name) && !values.some((value) => Array.isArray(value) || value === undefined) && new Set(values).size > 1;
  });
}

const titleOf = (node) => node._meta?.title ?? node.class_type;

function shown(value) {
  const text = value === "" ? t("empty") : String(value);
  return text.length > 24 ? `${text.slice(0, 23)}…` : text;
}
