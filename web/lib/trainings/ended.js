/** What came of a training: where it is, and what to do with it next. */

import { element, iconButton } from "../elements/element.js";
import { t } from "../language/words.js";

const SAVERS = { RolloutSaveLora: "LoRA saved", RolloutSaveModel: "Model saved" };

/**
 * What the nodes that save said: a title in our words and the paths.
 * @param {[string, object][]} nodes of the graph, with their ids
 * @param {(nodeId: string) => string[]} wordsOf
 * @returns {{title: string, paths: string[]}|null}
 */
export function savedIn(nodes, wordsOf) {
  for (const [name, title] of Object.entries(SAVERS)) {
    const paths = nodes.filter(([, node]) => node.comfyClass === name).flatMap(([id]) => wordsOf(id)).filter((line) => /[\\/]/.test(line));
    if (paths.length) return { title, paths };
  }
  return null;
}

/** Where a file in the output folder's ``loras`` is to be had; null for one elsewhere, as in ComfyUI's own folder. */
export function viewOf(path) {
  const found = /(?<![\\/]models)[\\/](loras)[\\/]([^\\/]+\.safetensors)$/.exec(path);
  return found && { filename: found[2], subfolder: found[1], type: "output" };
}

/** The buttons of a run that has ended well. */
export function buttonsOf({ saved, run, view, actions }) {
  const [path] = saved?.paths ?? [];
  return [
    path && iconButton("copy", t("Copy the path: {path}", { path }), () => actions.copy(path), t("Copy path")),
    view && element("a.rollout-button", { href: view, download: "", title: t("Save the file on this computer") }, element("i.pi.pi-download"), t("Download")),
    run && iconButton("play", t("Draw with what was learnt; with a LoRA also without it"), () => actions.tryIt(run, path), t("Try it")),
    run && iconButton("images", t("Samples over the training"), () => actions.samples(run), t("Samples")),
  ];
}
