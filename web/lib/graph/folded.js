/** Inputs for experts are folded away on the canvas, unless they say something else than by default. */

import { t } from "../language/words.js";

const BUTTON = "rollout_more";

/** The names of a node's inputs for experts, with their defaults. */
export function expertInputs(nodeData) {
  const specs = Object.values(nodeData?.input ?? {}).flatMap((inputs) => Object.entries(inputs ?? {}));
  return new Map(specs.filter(([, spec]) => spec?.[1]?.advanced).map(([name, [kind, options]]) => [name, options.default ?? (Array.isArray(kind) ? kind[0] : undefined)]));
}

/** Which widgets to hide: those for experts that are as they are by default, and nothing is wired into. */
export function foldable(widgets, experts, isWired) {
  return widgets.filter(({ name, value }) => experts.has(name) && experts.get(name) === value && !isWired(name));
}

/** Folds a node, or opens it; ``isOpen`` is kept with the workflow. */
export function fold(node, LiteGraph) {
  const experts = expertInputs(node.constructor.nodeData);
  if (!experts.size || LiteGraph?.vueNodesMode) return; // the newer nodes fold by themselves
  const isWired = (wanted) => node.inputs?.some(({ name, link }) => name === wanted && link != null);
  const isOpen = node.properties.rollout_open === true;
  const hidden = new Set(isOpen ? [] : foldable(node.widgets ?? [], experts, isWired));
  for (const widget of node.widgets ?? []) if (experts.has(widget.name)) widget.hidden = hidden.has(widget);
  const count = foldable(node.widgets ?? [], experts, isWired).length;
  const label = isOpen ? t("fewer inputs") : count === 1 ? t("1 more input") : t("{count} more inputs", { count });
  const button = node.widgets.find(({ name }) => name === BUTTON) ?? addButton(node, LiteGraph);
  button.label = label;
  button.hidden = !count;
}

function addButton(node, LiteGraph) {
  const button = node.addWidget("button", BUTTON, null, () => {
    node.properties.rollout_open = !node.properties.rollout_open;
    fold(node, LiteGraph);
    const [width, height] = node.computeSize();
    node.setSize([Math.max(node.size[0], width), node.properties.rollout_open ? Math.max(node.size[1], height) : height]);
    node.setDirtyCanvas?.(true, true);
  }, { serialize: false }); // not into what is queued
  button.serialize = false; // nor into the workflow file
  const firstPanel = node.widgets.findIndex(({ element }) => element);
  if (firstPanel >= 0) node.widgets.splice(firstPanel, 0, node.widgets.pop()); // above our own panels
  return button;
}
