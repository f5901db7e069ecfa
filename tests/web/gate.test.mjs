import assert from "node:assert/strict";
import { test } from "node:test";
import { Gate, focused, shareOf } from "../../web/lib/server/gate.js";

class Api extends EventTarget {
  dispatchCustomEvent(type, detail) {
    return this.dispatchEvent(Object.assign(new Event(type, { cancelable: true }), { detail }));
  }
}

const JOB = "job-1";
const running = (value, max = 10) => ({ state: "running", value, max });

/** A frontend that paints what it hears, behind a gate; ``answer(home)`` is the server's. */
function painted({ canvas = "mine", draws = () => false, nodes = ["1", "2", "3", "4"], trainers = ["3"] } = {}) {
  const api = new Api(), heard = [];
  let answer;
  const world = { canvas };
  const gate = new Gate(api, {
    lookUp: () => new Promise((resolve) => (answer = (home) => resolve({ home, nodes, trainers: new Set(trainers), ours: new Set(nodes) }))),
    onCanvas: () => world.canvas, settled: () => {}, draws,
  });
  gate.listen();
  for (const type of ["progress_state", "executed", "b_preview_with_metadata", "execution_cached"]) {
    api.addEventListener(type, ({ detail }) => heard.push([type, structuredClone(detail)]));
  }
  const tell = (type, detail) => api.dispatchCustomEvent(type, { prompt_id: JOB, ...detail });
  return { tell, heard, world, answer: async (home) => (answer(home), await new Promise((done) => setTimeout(done))) };
}

const start = ({ tell }) => tell("execution_start", {});
const picture = { images: [{ filename: "a.png" }] };

test("what a job says of its nodes waits until it is known whose they are, and keeps its order", async () => {
  const page = painted();
  start(page);
  page.tell("progress_state", { nodes: { 1: running(1) } });
  page.tell("executed", { node: "2", output: picture });
  assert.deepEqual(page.heard, []);
  await page.answer("mine");
  assert.deepEqual(page.heard.map(([type]) => type), ["progress_state", "executed"]);
  assert.equal(page.heard[0][1].nodes[1].value, 1);
});

test("another workflow's job paints no node of the canvas, by any kind of event", async () => {
  const page = painted();
  start(page);
  await page.answer("other");
  page.tell("progress_state", { nodes: { 1: { ...running(0), display_node_id: "1" } } });
  page.tell("executed", { node: "2", output: picture });
  page.tell("b_preview_with_metadata", { jobId: JOB, displayNodeId: "2" });
  const [progress, executed, preview] = page.heard.map(([, detail]) => detail);
  assert.deepEqual(Object.entries(progress.nodes).map(([id, node]) => [id, node.display_node_id]), [["-1:1", "-1:1"]]);
  assert.deepEqual([executed.node, executed.display_node, preview.displayNodeId], ["2", "-1:2", "-1:2"]);
  page.world.canvas = "other"; // the user goes to its tab
  page.tell("b_preview_with_metadata", { jobId: JOB, displayNodeId: "2" });
  assert.equal(page.heard.at(-1)[1].displayNodeId, "2");
});

test("a job that ends before it is known leaves no progress behind, but its pictures", async () => {
  const page = painted();
  start(page);
  page.tell("progress_state", { nodes: { 1: running(1) } });
  page.tell("executed", { node: "2", output: picture });
  page.tell("execution_success", {});
  await page.answer("mine");
  assert.deepEqual(page.heard.map(([type]) => type), ["executed"]);
});

test("a node with a panel of its own gets no second picture", async () => {
  const page = painted({ draws: (id) => id === "2" });
  start(page);
  await page.answer("mine");
  page.tell("b_preview_with_metadata", { jobId: JOB, displayNodeId: "2" });
  page.tell("b_preview_with_metadata", { jobId: JOB, displayNodeId: "4" });
  assert.deepEqual(page.heard.map(([, { displayNodeId }]) => displayNodeId), ["-1:2", "4"]);
});

test("as many nodes count as done as there is done of the training, and in the end nothing is lost", async () => {
  const page = painted();
  start(page);
  await page.answer("mine");
  for (const node of ["1", "2"]) page.tell("executed", { node, output: { text: ["words"] } });
  assert.deepEqual(page.heard, []);
  page.tell("progress_state", { nodes: { 3: running(5) } });
  assert.deepEqual(page.heard.filter(([type]) => type === "executed").map(([, { node }]) => node), ["1", "2"]);
  page.tell("progress_state", { nodes: { 3: running(8) } });
  assert.deepEqual(page.heard.filter(([type]) => type === "execution_cached").flatMap(([, { nodes }]) => nodes), ["3"]);
  const late = painted();
  start(late);
  await late.answer("mine");
  late.tell("executed", { node: "1", output: { text: ["words"] } });
  late.tell("execution_error", {});
  assert.deepEqual(late.heard.map(([type]) => type), ["executed"]);
});

test("the node that trains is the current one, not those that it pulls", () => {
  const nodes = { 1: running(4), 2: running(0, 1), 3: running(4), 4: running(2, 3) };
  assert.deepEqual(Object.values(focused(nodes, new Set(["3"]))).map(({ state }) => state), ["finished", "finished", "running", "running"]);
  const midway = focused({ 1: running(5), 2: running(4), 3: running(4), 4: running(5, 20) }, new Set(["3"])); // told one by one
  assert.deepEqual(Object.values(midway).map(({ state }) => state), ["finished", "finished", "running", "running"]);
  assert.equal(focused(nodes, new Set()), nodes);
  assert.equal(shareOf({ 3: running(4), 5: running(0) }, new Set(["3", "5"])), 0.2);
  assert.equal(shareOf({}, new Set()), 0);
});

test("nodes that a training takes as they were count as it advances; where nothing trains, at once", async () => {
  const told = (page) => page.heard.filter(([type]) => type === "execution_cached").flatMap(([, { nodes }]) => nodes);
  const page = painted();
  start(page);
  page.tell("execution_cached", { nodes: ["1", "2", "4"] });
  await page.answer("mine");
  page.tell("progress_state", { nodes: { 3: running(1) } });
  assert.deepEqual(told(page), []);
  page.tell("progress_state", { nodes: { 3: running(5) } });
  assert.deepEqual(told(page), ["1", "2"]);
  const drawing = painted({ trainers: [] });
  start(drawing);
  drawing.tell("execution_cached", { nodes: ["1", "2"] });
  assert.deepEqual(told(drawing), []);
  await drawing.answer("mine");
  drawing.tell("execution_cached", { nodes: ["4"] });
  assert.deepEqual(told(drawing), ["1", "2", "4"]);
});

test("what a node found is heard at once, also where the frontend hears of it later", async () => {
  const api = new Api(), heard = [];
  const job = { home: "mine", nodes: ["1", "3"], trainers: new Set(["3"]), ours: new Set(["1", "3"]) };
  const gate = new Gate(api, { lookUp: async () => job, onCanvas: () => "mine", settled: () => {}, draws: () => false, hears: ({ node }) => heard.push(node) });
  const late = [];
  api.addEventListener("executed", ({ detail }) => late.push(detail.node)); // long before the gate
  gate.listen();
  api.dispatchCustomEvent("execution_start", { prompt_id: JOB });
  await new Promise((done) => setTimeout(done));
  api.dispatchCustomEvent("executed", { prompt_id: JOB, node: "1", output: { text: ["words"] } });
  assert.deepEqual([heard, late], [["1"], []]);
});
