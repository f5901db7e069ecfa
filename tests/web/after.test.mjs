import assert from "node:assert/strict";
import { test } from "node:test";
import { shortened } from "../../web/lib/language/paths.js";
import { heightOf } from "../../web/lib/views/found.js";
import { newId } from "../../web/lib/graph/canvas.js";
import { viewOf } from "../../web/lib/trainings/ended.js";
import { hasTag, tagsIn, tagsOf } from "../../web/lib/runs/run_notes.js";
import { differences, settingsApart } from "../../web/lib/graph/settings_diff.js";
import { makeRoom } from "../../web/lib/graph/room.js";
import { Sight } from "../../web/lib/graph/sight.js";
import { arrange, tryIt } from "../../web/lib/graph/try_it.js";

const trained = {
  1: { class_type: "RolloutLoadPretrained", inputs: { path: "sd15", storage: "bf16" } },
  2: { class_type: "RolloutAddLora", inputs: { model: ["1", 0], rank: 16, continue_from: "" } },
  11: { class_type: "RolloutSamplePrompts", inputs: { model: ["2", 0], pipeline: ["1", 2], prompts: "a cat", seed: 3, samples: ["12", 0] } },
};

test("the same prompts from the same noise, without the LoRA and at three strengths", () => {
  const graph = tryIt(trained, "/out/loras/cat.safetensors", "run_1");
  const samplers = Object.values(graph).filter(({ class_type: name }) => name === "RolloutSamplePrompts");
  assert.deepEqual(samplers.map(({ inputs }) => [inputs.prompts, inputs.seed, inputs.samples]), Array(4).fill(["a cat", 3, undefined]));
  assert.deepEqual(samplers.map(({ inputs: { model: [id] } }) => [graph[id].class_type, graph[id].inputs.strength, graph[id].inputs.continue_from]), [
    ["RolloutLoadPretrained", undefined, undefined], ...[0.5, 0.75, 1].map((strength) => ["RolloutAddLora", strength, "/out/loras/cat.safetensors"]),
  ]);
  for (const { inputs } of Object.values(graph)) for (const value of Object.values(inputs)) if (Array.isArray(value)) assert.ok(graph[value[0]]);
});

test("a model from scratch is loaded whole; where nothing draws there is nothing to try", () => {
  const graph = tryIt({ 8: { class_type: "RolloutSampleImages", inputs: { model: ["4", 0], steps: 20 } } }, "", "digits_1");
  assert.equal(graph[1].inputs.folder, "rollout/digits_1");
  assert.deepEqual(graph[2].inputs, { steps: 20, model: ["1", 0], schedule: ["1", 1] });
  assert.equal(tryIt({ 1: trained[1] }, "x", "y"), null);
});

test("the prompts are written once for all that draw them, and nothing covers anything", () => {
  const wired = [];
  const node = (type, height) => ({ type, size: [200, height], pos: [0, 0], inputs: [{ name: "model" }, { name: "prompts", widget: { name: "prompts" } }] });
  const words = { size: [0, 0], setSize: (size) => (words.size = size), connect: (from, to, slot) => wired.push([from, to.type, slot]) };
  const nodes = [node("RolloutLoadPretrained", 300), node("RolloutSamplePrompts", 400), node("RolloutAddLora", 250), node("RolloutSamplePrompts", 400)];
  arrange({ nodes, add: (one) => nodes.push(one) }, () => words);
  assert.deepEqual(wired, Array(2).fill([0, "RolloutSamplePrompts", 1]));
  assert.deepEqual(words.pos, [0, 0]);
  for (const one of nodes) for (const other of nodes.filter((each) => each !== one)) {
    assert.ok(one.pos.some((place, axis) => place + one.size[axis] <= other.pos[axis] || other.pos[axis] + other.size[axis] <= place));
  }
});

test("only what changes the training differs", () => {
  const node = (class_type, inputs) => ({ class_type, inputs, _meta: { title: class_type.slice(7) } });
  const before = { 1: node("RolloutOptimizer", { learning_rate: 1e-4, run_name: "a" }), 2: node("RolloutOptimizerStep", { steps: 10, loss: ["3", 0], preview_every: 5 }), 3: node("RolloutAddLora", {}) };
  const after = { 1: node("RolloutOptimizer", { learning_rate: 2e-4, run_name: "b" }), 2: node("RolloutOptimizerStep", { steps: 10, loss: ["4", 0], preview_every: 9 }), 4: node("RolloutRollout", {}) };
  assert.deepEqual(differences(before, after), ["learning_rate 0.0001 → 0.0002", "+ Rollout", "− AddLora"]);
  assert.deepEqual(differences(before, before), []);
});

test("a LoRA in the output folder can be downloaded, one in ComfyUI's own folder is there already", () => {
  assert.deepEqual(viewOf("/srv/output/loras/cat_00001.safetensors"), { filename: "cat_00001.safetensors", subfolder: "loras", type: "output" });
  assert.equal(viewOf("/srv/ComfyUI/models/loras/cat.safetensors"), null);
  assert.equal(viewOf("C:\\out\\loras\\cat.safetensors").filename, "cat.safetensors");
  assert.equal(viewOf("/output/models/digits"), null);
  assert.match(newId(), /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-a[0-9a-f]{3}-[0-9a-f]{12}$/);
});

test("several runs are told apart by the settings that differ between any two of them", () => {
  const graph = (rank, steps, extra = {}) => ({
    1: { class_type: "RolloutAddLora", inputs: { model: ["0", 0], rank, targets: "attn" }, _meta: { title: "Add LoRA" } },
    2: { class_type: "RolloutOptimizerStep", inputs: { steps, run_name: `r${rank}`, preview_every: rank }, _meta: { title: "Optimizer Step" } }, ...extra,
  });
  const rollout = { 3: { class_type: "Rollout", inputs: { steps: 5 }, _meta: { title: "Rollout" } } };
  const apart = settingsApart(new Map([["a", graph(8, 10)], ["b", graph(16, 10)], ["c", graph(8, 20, rollout)]]));
  assert.deepEqual([...apart], [
    ["a", ["rank 8", "steps 10", "without Rollout"]], ["b", ["rank 16", "steps 10", "without Rollout"]], ["c", ["rank 8", "steps 20", "with Rollout"]],
  ]);
  assert.deepEqual([...settingsApart(new Map([["a", graph(8, 10)], ["b", graph(8, 10)]])).values()], [[], []]);
  assert.deepEqual(settingsApart(new Map([["a", graph(8, 10, rollout)], ["b", graph(8, 20, { 3: { ...rollout[3], inputs: { steps: 9 } } })]])).get("b"), ["Optimizer Step steps 20", "Rollout steps 9"]);
});

test("tags are told apart as people do", () => {
  assert.deepEqual(tagsIn(" good, soft   face,,Good, "), ["good", "soft face"]);
  assert.deepEqual(tagsIn(""), []);
  const runs = [{ tags: ["good"] }, { tags: ["Bad", "good"] }, {}];
  assert.deepEqual(tagsOf(runs), ["Bad", "good"]);
  assert.deepEqual(runs.map((run) => hasTag(run, "GOOD")), [true, true, false]);
  assert.deepEqual(runs.map((run) => hasTag(run, "")), [true, true, true]);
});

test("of a path on a node its last folders are shown", () => {
  assert.equal(shortened("/srv/a/b/output/models/digits_00001"), "…/output/models/digits_00001");
  assert.equal(shortened("the run's folder is /srv/x/output/rollout/cats_1, done"), "the run's folder is …/output/rollout/cats_1, done");
  assert.equal(shortened("C:\\ComfyUI\\models\\loras\\cat.safetensors"), "…/models/loras/cat.safetensors");
  for (const line of ["/out/cat", "1/2 of 3/4", "12 images, 3 buckets", "somebody/model"]) assert.equal(shortened(line), line);
});

test("a node has room for all rows of its words, and for the margin that the canvas takes", () => {
  const row = heightOf(["a", "b"]) - heightOf(["a"]), rows = (line) => (heightOf([line]) - heightOf(["a"])) / row + 1;
  assert.equal(heightOf(["a"]) - row, 26);
  assert.deepEqual([rows("x".repeat(40)), rows("x".repeat(41)), rows("x".repeat(81))], [1, 2, 3]);
  assert.equal(rows(`${"x".repeat(30)} ${"x".repeat(30)} ${"x".repeat(9)}`), 2);
  assert.equal(rows(`short ${"x".repeat(41)} end`), 3);
});

test("nodes that are covered move down with their wires, and their frame grows", () => {
  const nodes = [
    { pos: [0, 0], size: [100, 300] }, { pos: [0, 200], size: [100, 100] }, { pos: [0, 350], size: [100, 100] },
    { pos: [0, 1000], size: [100, 10] }, { pos: [200, 100], size: [100, 10] },
  ];
  const groups = [{ pos: [-15, -60], size: [130, 600] }, { pos: [185, 40], size: [130, 90] }];
  const reroutes = new Map([[1, { pos: [-20, 214] }], [2, { pos: [-20, -84] }], [3, { pos: [180, 214] }]]);
  assert.equal(makeRoom({ nodes, groups, reroutes }), true);
  assert.deepEqual(nodes.map(({ pos }) => pos[1]), [0, 360, 520, 1000, 100]);
  assert.deepEqual(groups.map(({ size }) => size[1]), [695, 90]);
  assert.deepEqual([...reroutes.values()].map(({ pos }) => pos[1]), [374, -84, 214]);
  assert.equal(makeRoom({ nodes, groups, reroutes }), false);
});

test("nodes that stand close, but free, stay", () => {
  const nodes = [{ pos: [0, 0], size: [100, 100] }, { pos: [0, 131], size: [100, 100] }];
  assert.equal(makeRoom({ nodes }), false);
});

test("a page that has no graph yet may hear of pictures", (context) => {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  new Sight({}).standApart();
  context.mock.timers.tick(1000);
});
