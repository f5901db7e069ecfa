/** Sheets of sample images: which prompt or class each cell shows, and where on the sheet it is. */

import { TRAINER } from "../graph/nodes.js";
import { t } from "../language/words.js";
import { framesAmong } from "../rollouts/film.js";

const GAP = 2; // pixels between two cells, as in training/preview.py
const PICTURE = /^(.+)_step_(\d+)\.png$/;
const FILM = /^(.+)_step_\d+_frames\.json$/;
const DRAWS = new Set(["RolloutSamplePrompts", "RolloutSampleImages"]);

/**
 * @typedef {{step: number, name?: string, view: {filename: string, subfolder: string, type?: string}}} Sheet of a training
 *   step, or one that has a name
 * @typedef {{node: string, title: string, facts: string, items: {name: string, places: (size: {width: number, height: number}) => object[]}[], sheets: Sheet[]}} Series
 *   what one node drew over the training; an item is a prompt or a class, its places are its images on a sheet
 */

/**
 * All that a run's nodes drew.
 * @param {{path: string, view: object}[]} files of the run
 * @param {Record<string, {class_type: string, inputs: object, _meta?: {title?: string}}>} prompt its graph
 * @returns {Series[]}
 */
export function seriesOf(files, prompt) {
  const byNode = new Map();
  for (const { path, view } of files) {
    const found = path.startsWith("samples/") && PICTURE.exec(view.filename);
    if (!found) continue;
    const node = found[1].replaceAll("-", ":");
    if (!byNode.has(node)) byNode.set(node, []);
    byNode.get(node).push({ step: parseInt(found[2], 10), view });
  }
  return [...byNode].map(([node, sheets]) => ({
    node, sheets: sheets.sort((a, b) => a.step - b.step), title: prompt[node]?._meta?.title ?? t("node {id}", { id: node }), ...layoutOf(prompt[node]),
  }));
}

/**
 * What the newest job of a workflow drew: nodes that draw the same prompts side by side, each a sheet of one series.
 * Nothing where it trained, for then there is a run.
 * @param {{id: string, prompt: Record<string, any>, outputs: Record<string, any>}|null} job
 * @returns {Series[]}
 */
export function triesOf(job) {
  const alike = new Map(), nodes = Object.entries(job?.prompt ?? {});
  if (nodes.some(([, told]) => told.class_type === TRAINER)) return [];
  for (const [node, told] of nodes) {
    const view = job.outputs[node]?.images?.[0];
    if (!DRAWS.has(told.class_type) || !view) continue;
    const { items, facts } = layoutOf(told), key = JSON.stringify([told.class_type, told.inputs.count, items.map(({ name }) => name)]);
    if (!alike.has(key)) alike.set(key, { node, title: t("tried"), facts, items, sheets: [] });
    const { sheets } = alike.get(key);
    sheets.push({ step: sheets.length, name: told._meta?.title ?? t("node {id}", { id: node }), view: { ...view, job: job.id } });
  }
  return [...alike.values()];
}

/**
 * The recorded rollouts of a run: a row an item, as the model left it at the end of the rollout.
 * @param {{path: string, view: object}[]} files of the run
 * @param {Record<string, any>} prompt its graph
 * @param {(frames: object) => Promise<{items: number, cell: [number, number], sampler: string}>} read the facts of a film
 * @returns {Promise<Series[]>}
 */
export async function filmSeries(files, prompt, read) {
  const names = files.map(({ path, view }) => path.startsWith("rollouts/") && FILM.exec(view.filename)?.[1]).filter(Boolean);
  return Promise.all([...new Set(names)].map(async (name) => {
    const node = name.replaceAll("-", ":"), films = framesAmong(files, node), { items, cell, sampler } = await read(films[0]);
    const title = t("{node}: rolled out", { node: prompt[node]?._meta?.title ?? t("node {id}", { id: node }) });
    return {
      node, title, facts: sampler, sheets: films.map(({ step, subfolder, image }) => ({ step, view: { filename: image, subfolder } })),
      items: Array.from({ length: items }, (_, item) => ({ name: t("item {item}", { item: item + 1 }), places: endOf(item, items, cell) })),
    };
  }));
}

/** The last state of an item on a film's sheet: what was rolled out is below, and ends with the target. */
function endOf(item, items, [across, down]) {
  return (size) => {
    const width = size.width / items, height = (width * down) / across;
    return [{ x: item * width, y: size.height - height, width, height }];
  };
}

function layoutOf(node) {
  const inputs = node?.inputs ?? {};
  if (node?.class_type === "RolloutSamplePrompts" && typeof inputs.prompts === "string") return promptsOf(inputs);
  if (node?.class_type === "RolloutSampleImages") return classesOf(inputs);
  return { facts: "", items: [{ name: t("samples"), places: (size) => [{ x: 0, y: 0, ...size }] }] };
}

/** One row a prompt, ``count`` images in each. */
function promptsOf({ prompts, count = 1, seed, guidance, steps }) {
  const names = prompts.split("\n").map((line) => line.trim()).filter(Boolean);
  const columns = Number(count) || 1;
  const items = names.map((name, row) => ({
    name, places: (size) => Array.from({ length: columns }, (_, column) => cell(size, columns, names.length, column, row)),
  }));
  return { items, facts: told({ seed, guidance, steps }) };
}

/** One column a class, ``count`` images in each; how many classes there are, the sheet says, for its cells are square. */
function classesOf({ labels = "", count = 1, seed, sampler, steps }) {
  const rows = Number(count) || 1, facts = told({ seed, sampler, steps });
  const all = (size) => Math.max(1, Math.round((size.width + GAP) / ((size.height + GAP) / rows)));
  const chosen = labelsIn(labels);
  const places = (column, columns) => (size) => Array.from({ length: rows }, (_, row) => cell(size, columns ?? all(size), rows, column, row));
  if (chosen.length) return { facts, items: chosen.map((name, column) => ({ name, places: places(column, chosen.length) })) };
  return { facts, items: [{ name: t("all classes"), places: (size) => [{ x: 0, y: 0, ...size }] }] };
}

function labelsIn(text) {
  return String(text).split(",").flatMap((part) => {
    const range = /^\s*(\d+)\s*-\s*(\d+)\s*$/.exec(part);
    if (!range) return part.trim() ? [part.trim()] : [];
    return Array.from({ length: Math.max(0, range[2] - range[1] + 1) }, (_, place) => String(Number(range[1]) + place));
  });
}

const told = (facts) => Object.entries(facts).filter(([, value]) => typeof value !== "object" && value !== undefined).map(([name, value]) => `${name} ${value}`).join(" · ");

/** The place of a cell on a sheet of this size, also on a smaller copy of it. */
function cell({ width, height }, columns, rows, column, row) {
  const w = (width + GAP) / columns, h = (height + GAP) / rows;
  return { x: Math.round(column * w), y: Math.round(row * h), width: Math.max(1, Math.round(w - GAP)), height: Math.max(1, Math.round(h - GAP)) };
}

/** The sheet of a training step, or the last one before it. */
export function sheetAt(sheets, step) {
  return sheets.findLast((sheet) => sheet.step <= step) ?? sheets[0];
}
