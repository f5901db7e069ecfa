import assert from "node:assert/strict";
import { test } from "node:test";
import { parseLines } from "../../web/lib/server/backend.js";
import { formatAgo, formatBytes, formatDuration } from "../../web/lib/language/amounts.js";
import { idsOf, nodeAt, nodesOf } from "../../web/lib/graph/nodes.js";
import { summaryOf } from "../../web/lib/runs/run_facts.js";
import { thumbnailOf } from "../../web/lib/runs/run_files.js";

test("times and sizes are said as people say them", () => {
  assert.deepEqual([0.25, 8.24, 42.4, 200, 7500].map(formatDuration), ["0.3 s", "8.2 s", "42 s", "3 min 20 s", "2 h 05 min"]);
  assert.equal(formatDuration(null), "–");
  const minute = 60_000;
  assert.deepEqual([0, 5 * minute, 3 * 60 * minute, 72 * 60 * minute].map((ago) => formatAgo(0, ago)), ["just now", "5 min ago", "3 h ago", "3 days ago"]);
  assert.equal(formatAgo(NaN, 1), "");
  assert.deepEqual([556, 80_200, 2_840_000].map(formatBytes), ["556 B", "80.2 kB", "2.84 MB"]);
});

test("a run in one line: how far it came, how long it took", () => {
  const now = Date.parse("2026-01-01T01:00:00Z"), started = "2026-01-01T00:58:00Z";
  assert.equal(summaryOf({ status: "finished", steps: 1200, seconds: 42, started }, now), "1,200 steps · 42 s · 2 min ago");
  assert.equal(summaryOf({ status: "running", steps: 600, started }, now, { done: 150, left: 90 }), "150 of 600 steps · 2 min 00 s · 1 min 30 s left");
  assert.equal(summaryOf({ status: "interrupted", steps: 600, steps_done: 57, seconds: 9, started }, now), "57 of 600 steps · 9.0 s · 2 min ago");
  assert.equal(summaryOf({}, now), "");
});

test("the newest samples stand for a run, else its newest rollout", () => {
  const file = (path, modified) => ({ path, modified, view: { filename: path.split("/").at(-1) } });
  const files = [file("samples/8_step_000100.png", 1), file("samples/8_step_000200.png", 2), file("rollouts/6_step_000300.png", 3), file("rollouts/6_step_000300_frames.png", 4)];
  assert.equal(thumbnailOf(files).filename, "8_step_000200.png");
  assert.equal(thumbnailOf(files.slice(2)).filename, "6_step_000300.png");
  assert.equal(thumbnailOf([]), null);
});

test("a line that is being written is left out", () => {
  assert.deepEqual(parseLines('{"step": 0}\n{"step": 1}\n{"st'), [{ step: 0 }, { step: 1 }]);
});

test("nodes are found by the server's ids, inside of subgraphs too", () => {
  const graph = (...nodes) => ({ nodes, getNodeById: (id) => nodes.find((node) => node.id === id) });
  const inner = { id: 7, comfyClass: "Rollout" };
  const outer = { id: 5, comfyClass: "uuid", subgraph: graph(inner) };
  const root = graph({ id: 1, comfyClass: "Rollout" }, outer);
  assert.equal(nodeAt(root, "5:7"), inner);
  assert.equal(nodeAt(root, 1).id, 1);
  assert.equal(nodeAt(root, "5:8"), undefined);
  assert.equal(nodeAt(root, "9:7"), undefined);
  assert.deepEqual([...nodesOf(root)].map(([id]) => id), ["1", "5", "5:7"]);
  assert.deepEqual(idsOf(root, "Rollout"), ["1", "5:7"]);
  assert.deepEqual(idsOf(undefined, "Rollout"), []);
});
