/** What our wires carry, told by colour: sockets, links and reroutes. */

export const COLOURS = {
  ROLLOUT_DATASET: "#5fb8d6", ROLLOUT_SCHEDULE: "#c9b458", ROLLOUT_MODEL: "#b39ddb", ROLLOUT_PIPELINE: "#e57399", ROLLOUT_BATCH: "#7bc47f",
  ROLLOUT_LOSS: "#ff8a65", ROLLOUT_OPTIMIZER: "#90a4ae", ROLLOUT_SAMPLES: "#f2c14e", ROLLOUT_RUN: "#a1887f",
};

/** Gives our sockets their colours; a change of the palette takes them away again. */
export function colourSockets(canvas) {
  if (!canvas) return;
  Object.assign(canvas.constructor.link_type_colors ?? {}, COLOURS);
  Object.assign(canvas.default_connection_color_byType ?? {}, COLOURS);
  canvas.setDirty(true, true);
}
