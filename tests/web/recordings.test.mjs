import assert from "node:assert/strict";
import { test } from "node:test";
import { Recording, Recordings } from "../../web/lib/trainings/recordings.js";
import { recall, remember } from "../../web/lib/trainings/remembered.js";

const frames = (step, run = "a_00001") => ({ step, subfolder: `rollout/${run}/rollouts`, image: `6_${step}.png`, data: `6_${step}.json` });

test("events of a job belong to the workflow that it was queued from", () => {
  const recordings = new Recordings();
  recordings.begin("job", "on canvas");
  recordings.addRows("9", [{ step: 0, loss: 1 }], 0);
  recordings.settle("job", "queued from");
  recordings.addRows("9", [{ step: 1, loss: 1 }], 1);
  assert.equal(recordings.of("on canvas", "9"), undefined);
  assert.deepEqual(recordings.of("queued from", 9).metrics.steps, [0, 1]);
});

test("the old curve stays until the new job says something about that node", () => {
  const recordings = new Recordings();
  recordings.begin("1", "w");
  recordings.addRows("9", [{ step: 0, loss: 1 }, { step: 1, loss: 2 }], 0);
  recordings.end();
  recordings.begin("2", "w");
  assert.deepEqual(recordings.of("w", "9").metrics.steps, [0, 1]);
  assert.equal(recordings.of("w", "9").running, false);
  recordings.addRows("9", [{ step: 0, loss: 3 }], 0);
  assert.deepEqual(recordings.of("w", "9").metrics.columns.get("loss"), [3]);
});

test("what nodes said stays where a job takes them from the cache", () => {
  const recordings = new Recordings(), said = () => ["1", "2", "3"].map((node) => recordings.wordsOf("w", node).join());
  const begin = (job) => (recordings.begin(job, ""), recordings.settle(job, "w"));
  begin("a");
  for (const node of [1, 2, 3]) recordings.addWords("a", node, [`a${node}`]);
  begin("b");
  recordings.takeAsTheyWere("b", ["1", "2"]);
  recordings.addWords("b", "2", ["b2"]);
  recordings.takeAsTheyWere("b", ["3"]); // the gate counts nodes as done in this way
  assert.deepEqual(said(), ["a1", "b2", ""]);
  recordings.begin("c", "");
  recordings.takeAsTheyWere("c", ["1"]); // before it is known whose job it is
  recordings.settle("c", "w");
  assert.deepEqual(said(), ["a1", "", ""]);
});

test("how many steps there will be is known though it was told before the first of them, and of this job only", () => {
  const recordings = new Recordings();
  recordings.begin("1", "w");
  recordings.setTotal("9", 600);
  recordings.addRows("9", [{ step: 0, loss: 1 }], 0);
  assert.equal(recordings.of("w", "9").total, 600);
  recordings.begin("2", "w");
  recordings.addRows("9", [{ step: 0, loss: 1 }], 0);
  assert.equal(recordings.of("w", "9").total, 0);
});

test("the run is known of all that train in it, whoever told it first", () => {
  const recordings = new Recordings();
  recordings.begin("1", "w");
  recordings.addFrames("6", frames(0));
  recordings.addRows("9", [{ step: 0, loss: 1 }], 0);
  assert.equal(recordings.training.recording.run, "a_00001");
});

test("how far a run is, is known of the one that trains", () => {
  const recordings = new Recordings();
  recordings.begin("1", "w");
  recordings.setTotal("9", 10);
  recordings.addRows("9", [{ step: 4, loss: 1, steps_per_second: 2.5 }], 0);
  recordings.setRun("9", "digits_1");
  assert.deepEqual(recordings.progressOf("digits_1"), { done: 5, left: 2 });
  assert.deepEqual(recordings.progressOf("digits_2"), { done: 0, left: null });
});

test("a lost connection does not begin the job anew", () => {
  const recordings = new Recordings();
  assert.equal(recordings.begin("1", "w"), true);
  recordings.addRows("9", [{ step: 0, loss: 1 }], 0);
  assert.equal(recordings.begin("1", "w"), false);
  recordings.addRows("9", [{ step: 0, loss: 1 }, { step: 1, loss: 1 }], 0);
  assert.deepEqual(recordings.of("w", "9").metrics.steps, [0, 1]);
});

test("films are in order of training, each step once, and name the run", () => {
  const recordings = new Recordings();
  recordings.begin("1", "w");
  recordings.addRows("9", [{ step: 0, loss: 1 }], 0);
  for (const step of [50, 0, 50]) recordings.addFrames("6", frames(step));
  assert.deepEqual(recordings.of("w", "6").films.map(({ step }) => step), [0, 50]);
  assert.equal(recordings.of("w", "6").run, "a_00001");
  assert.equal(recordings.of("w", "9").run, "a_00001"); // of the same job
});

test("of a long run no more films are listed than its folder keeps", () => {
  const recording = new Recording();
  for (let step = 0; step < 200; step++) recording.addFrames(frames(step));
  const steps = recording.films.map(({ step }) => step);
  assert.deepEqual([steps.length, steps[0], steps.at(-1)], [64, 0, 199]);
});

test("what was found after a reload and what is heard since are joined", () => {
  const recordings = new Recordings();
  recordings.adopt("w");
  recordings.addFrames("6", frames(100));
  const found = new Recording();
  found.run = "a_00001";
  found.addFrames(frames(0));
  recordings.restore("w", "6", found);
  assert.deepEqual(recordings.of("w", "6").films.map(({ step }) => step), [0, 100]);
  const other = new Recording();
  other.run = "b";
  other.addFrames(frames(7, "b"));
  recordings.restore("w", "6", other); // an older run: not mixed in
  assert.deepEqual(recordings.of("w", "6").films.map(({ step }) => step), [0, 100]);
});

test("a page remembers over a reload, and forgets without complaint where it may not", () => {
  const items = new Map();
  const storage = { getItem: (key) => items.get(key) ?? null, setItem: (key, value) => items.set(key, value) };
  const recording = Object.assign(new Recording(), { run: "a", total: 10, films: [frames(1)] });
  remember(storage, "w", "6", recording);
  remember(storage, "w", "9", recording);
  assert.deepEqual(Object.keys(recall(storage, "w")), ["6", "9"]);
  assert.deepEqual(recall(storage, "w")["6"], { run: "a", total: 10, films: [frames(1)] });
  assert.deepEqual(recall(storage, "other"), {});
  items.set("rollout.runs.w", "no json");
  assert.deepEqual(recall(storage, "w"), {});
  remember({ getItem: () => null, setItem: () => { throw new Error("full"); } }, "w", "6", recording);
});
