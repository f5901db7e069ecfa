/** The rollouts of a node in an inspector, or why there are none, in the words of who looks at the node. */

import { widgetOf } from "../graph/widgets.js";
import { t } from "../language/words.js";

/**
 * @param {import("./inspector.js").Inspector} inspector
 * @param {object|undefined} node on the canvas
 * @param {import("../trainings/recordings.js").Recording|undefined} recording
 */
export function showRollouts(inspector, node, recording) {
  if (!recording?.films.length) inspector.setHint(...hintFor(node, recording));
  inspector.show(recording?.films ?? []);
}

function hintFor(node, recording) {
  if (widgetOf(node, "max_step_offset")?.value === 0) {
    return [t("Rollouts are off"), t("max_step_offset is 0: set it to 5 to see the model denoise.")];
  }
  if (recording?.running) return [t("Waiting for the first look"), t("Optimizer Step looks every preview_every steps.")];
  return [t("Run the workflow to see rollouts here"), t("The same few items, at every look during the training.")];
}
