/** What a run is, in few words. */

import { formatAgo, formatDuration } from "../language/amounts.js";
import { t } from "../language/words.js";

export const STATUS = { running: "running", finished: "finished", interrupted: "stopped", stopped: "ended without a word", failed: "failed" };

/** Steps, time and age of a run in one line. ``seen`` is what the live curve tells of a run that is going on. */
export function summaryOf(run, now, seen = { done: 0, left: null }) {
  const done = Math.max(run.steps_done ?? 0, run.status === "running" ? seen.done : 0);
  const started = Date.parse(run.started);
  const parts = [];
  if (run.steps) parts.push(run.status === "finished" ? t("{steps} steps", { steps: run.steps.toLocaleString("en-US") }) : t("{done} of {steps} steps", { done: done.toLocaleString("en-US"), steps: run.steps.toLocaleString("en-US") }));
  if (run.seconds) parts.push(formatDuration(run.seconds));
  else if (run.status === "running" && started) parts.push(formatDuration((now - started) / 1000));
  if (run.status === "running" && seen.left) parts.push(t("{time} left", { time: formatDuration(seen.left) }));
  else if (started) parts.push(formatAgo(started, now));
  return parts.join(" · ");
}
