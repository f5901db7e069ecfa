import assert from "node:assert/strict";
import { test } from "node:test";
import { Metrics, shares } from "../../web/lib/curves/metrics.js";

const row = (step, values = {}) => ({ step, loss: 1 / (step + 1), seconds: { 4: 0.1, "9.backward": 0.3 }, ...values });

test("rows become columns; what comes later or is missing is null before", () => {
  const metrics = new Metrics();
  metrics.add([row(0), row(1, { drift: 0.5 }), row(2, { drift: null, loss: null })]);
  assert.deepEqual(metrics.steps, [0, 1, 2]);
  assert.deepEqual(metrics.columns.get("drift"), [null, 0.5, null]);
  assert.deepEqual(metrics.columns.get("loss"), [1, 0.5, null]);
  assert.equal(metrics.last("drift"), 0.5);
  assert.equal(metrics.last("unknown"), null);
  assert.equal(metrics.at("loss", 1), 0.5);
  assert.equal(metrics.at("loss", 7), null);
});

test("what a server tells again is known already", () => {
  const metrics = new Metrics();
  metrics.add([row(0), row(1)]);
  metrics.add([row(0), row(1), row(2)]);
  assert.deepEqual(metrics.steps, [0, 1, 2]);
  assert.ok(Math.abs(metrics.seconds.get("4") - 0.3) < 1e-9);
});

test("the loss and its parts are found by name", () => {
  const metrics = new Metrics();
  metrics.add([row(0, { loss_flow: 1, loss_anti_drift: 0, learning_rate: 1, gloss: 2 })]);
  assert.deepEqual(metrics.losses, ["loss", "loss_anti_drift", "loss_flow"]);
});

test("the pace is that of the clock on the wall", () => {
  const metrics = new Metrics();
  metrics.add([row(0, { steps_per_second: 50 })], 100);
  assert.equal(metrics.pace, 50); // nothing better is known yet
  metrics.add([row(10)], 102);
  metrics.add([row(20)], 104);
  assert.equal(metrics.pace, 5);
  assert.equal(metrics.remaining(121), 20);
  assert.equal(metrics.remaining(0), null);
});

test("a long run is thinned out, its newest part is not", () => {
  const metrics = new Metrics();
  for (let start = 0; start < 90_000; start += 1000) metrics.add(Array.from({ length: 1000 }, (_, index) => row(start + index)));
  assert.ok(metrics.steps.length <= 40_000);
  assert.equal(metrics.lastStep, 89_999);
  assert.equal(metrics.at("loss", 89_998), 1 / 89_999);
  for (const column of metrics.columns.values()) assert.equal(column.length, metrics.steps.length);
});

test("shares of time have the nodes' names and add up to one", () => {
  const found = shares(new Map([["4", 6], ["9.backward", 3], ["1", 0.96], ["2", 0.04]]), (id) => ({ 4: "Rollout", 9: "Optimizer Step" })[id] ?? id);
  assert.deepEqual(found.map(({ name }) => name), ["Rollout", "Optimizer Step: backward", "1", "other"]);
  assert.ok(Math.abs(found.reduce((sum, { share }) => sum + share, 0) - 1) < 1e-9);
  assert.deepEqual(shares(new Map(), String), []);
});

test("spikes are those that the run itself has marked", () => {
  const metrics = new Metrics();
  assert.deepEqual(metrics.spikes, []);
  metrics.add([row(0), row(1, { spike: 1, loss: 9 }), row(2, { loss: 50 }), row(3, { spike: 1, loss: 8 })]);
  assert.deepEqual(metrics.spikes, [1, 3]);
});

test("what is measured now and then only keeps its places, however long the run", () => {
  const metrics = new Metrics();
  const rows = Array.from({ length: 90_000 }, (_, step) => ({ step, loss: 1, ...(step % 10 === 9 ? { machine: { memory: step } } : {}), ...(step % 100 === 0 ? { validation_loss: 2 } : {}) }));
  metrics.add(rows);
  assert.deepEqual(metrics.line("memory").xs.slice(0, 3), [9, 19, 29]);
  assert.deepEqual(metrics.line("memory").ys.slice(-1), [89_999]);
  assert.equal(metrics.line("validation_loss").xs.length, 900);
  assert.equal(metrics.line("loss").xs, metrics.steps);
  assert.equal(metrics.line("gpu_use"), null);
  assert.deepEqual(metrics.losses, ["loss"]);
});
