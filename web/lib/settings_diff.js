/** What differs between the settings of two runs, in the words of their nodes. */

import { t } from "./words.js";

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

const titleOf = (node) => node._meta?.title ?? node.class_type;

function shown(value) {
  const text = value === "" ? t("empty") : String(value);
  return text.length > 24 ? `${text.slice(0, 23)}…` : text;
}
