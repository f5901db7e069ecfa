/** After the training: a graph that draws the same prompts without what was learnt, with some of it, and with all. */

import { t } from "../language/words.js";

const STRENGTHS = [0.5, 0.75, 1];
const APART = 60; // pixels between nodes

/** The first node of a class in a graph that ComfyUI executes: its id and itself. */
const first = (prompt, name) => Object.entries(prompt).find(([, node]) => node.class_type === name) ?? [];

/** The values of a node's widgets, without what is wired into it. */
const widgets = (node) => Object.fromEntries(Object.entries(node?.inputs ?? {}).filter(([, value]) => !Array.isArray(value)));

/**
 * @param {Record<string, any>} prompt the graph that was trained with
 * @param {string} trained the path of the LoRA's file, or the name of the run
 * @param {string} run the name of the run
 * @returns {Record<string, any>|null} a graph to load on the canvas; null where nothing can draw
 */
export function tryIt(prompt, trained, run) {
  const [, base] = first(prompt, "RolloutLoadPretrained"), [, adapter] = first(prompt, "RolloutAddLora"), [, prompts] = first(prompt, "RolloutSamplePrompts");
  if (base && adapter) return withLora(base, adapter, prompts, trained);
  const [, images] = first(prompt, "RolloutSampleImages");
  return images ? fromScratch(images, run) : null;
}

function withLora(base, adapter, prompts, trained) {
  const graph = { 1: { class_type: "RolloutLoadPretrained", inputs: widgets(base), _meta: { title: t("The model") } } };
  const draw = (id, model, title) => {
    const inputs = { prompts: "a photo", ...widgets(prompts), model: [model, 0], pipeline: ["1", 2] };
    graph[id] = { class_type: "RolloutSamplePrompts", inputs, _meta: { title } };
  };
  draw("2", "1", t("Without the LoRA"));
  STRENGTHS.forEach((strength, place) => {
    const [add, sample] = [String(3 + 2 * place), String(4 + 2 * place)];
    graph[add] = { class_type: "RolloutAddLora", inputs: { ...widgets(adapter), model: ["1", 0], continue_from: trained, strength }, _meta: { title: t("The LoRA at {strength}", { strength }) } };
    draw(sample, add, t("With the LoRA at {strength}", { strength }));
  });
  return graph;
}

/**
 * Makes the graph one that a person works with: the prompts are written once, for all, and nodes stand in columns.
 * @param {object} graph on the canvas
 * @param {(name: string) => object} create makes a node
 */
export function arrange(graph, create) {
  const of = (name) => graph.nodes.filter(({ type }) => type === name);
  const samplers = of("RolloutSamplePrompts");
  const words = samplers.length > 1 ? shared(graph, samplers, create("PrimitiveNode")) : null;
  const columns = [[words, ...of("RolloutLoadPretrained"), ...of("RolloutLoadModel")], of("RolloutAddLora"), [...samplers, ...of("RolloutSampleImages")]];
  let x = 0;
  for (const column of columns.map((nodes) => nodes.filter(Boolean)).filter(({ length }) => length)) {
    let y = 0;
    for (const node of column) {
      node.pos = [x, y];
      y += node.size[1] + APART;
    }
    x += Math.max(...column.map(({ size }) => size[0])) + APART;
  }
}

/** One place for the prompts of several nodes, which the frontend keeps alike. */
function shared(graph, nodes, words) {
  if (!words) return null;
  graph.add(words);
  for (const node of nodes) words.connect(0, node, node.inputs.findIndex(({ widget }) => widget?.name === "prompts"));
  words.title = t("Your prompts, one a line");
  words.setSize([320, 140]);
  return words;
}

/** A model that was made here is loaded whole. */
function fromScratch(images, run) {
  return {
    1: { class_type: "RolloutLoadModel", inputs: { folder: `rollout/${run}` }, _meta: { title: t("What was trained") } },
    2: { class_type: "RolloutSampleImages", inputs: { ...widgets(images), model: ["1", 0], schedule: ["1", 1] }, _meta: { title: t("Its images") } },
  };
}
