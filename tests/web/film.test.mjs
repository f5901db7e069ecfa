import assert from "node:assert/strict";
import { test } from "node:test";
import { cellAt, difference, framesAmong, keyOf, largestDifference, mostCrowded, runOf, solverStep, thinned } from "../../web/lib/rollouts/film.js";
import { spread } from "../../web/lib/rollouts/item_history.js";

const FACTS = { items: 3, states: 4, cell: [8, 6], lengths: [1, 3, 2], solver_steps: [0, 1, 2, 3] };

test("teacher-forced states are above the rolled-out ones, one column an item", () => {
  assert.deepEqual(cellAt(FACTS, "teacher_forced", 0, 0), { x: 0, y: 0, width: 8, height: 6 });
  assert.deepEqual(cellAt(FACTS, "teacher_forced", 3, 2), { x: 16, y: 18, width: 8, height: 6 });
  assert.deepEqual(cellAt(FACTS, "rolled_out", 0, 1), { x: 8, y: 24, width: 8, height: 6 });
  assert.deepEqual(cellAt(FACTS, "rolled_out", 3, 2), { x: 16, y: 42, width: 8, height: 6 });
});

test("no difference is mid-grey, a gain is cut off at the ends, and nothing is transparent", () => {
  const forced = new Uint8ClampedArray([100, 100, 100, 255]);
  assert.deepEqual([...difference(forced, forced, 8)], [128, 128, 128, 255]);
  const rolled = new Uint8ClampedArray([110, 90, 255, 255]);
  assert.deepEqual([...difference(forced, rolled, 2)], [138, 118, 255, 255]);
  assert.equal(largestDifference(forced, rolled), 155);
});

test("an item that has arrived stays", () => {
  assert.deepEqual([0, 1, 2, 3].map((state) => solverStep(FACTS, state, 0)), [0, 1, 1, 1]);
  assert.deepEqual([0, 1, 2, 3].map((state) => solverStep(FACTS, state, 2)), [0, 1, 2, 2]);
});

test("a run's films are found among its files, those of the node only", () => {
  const names = ["5-6_step_000100_frames.json", "5-6_step_000020_frames.json", "6_step_000020_frames.json", "5-6_step_000020.png", "5-6_step_x_frames.json"];
  const files = names.map((filename) => ({ view: { filename, subfolder: "rollout/run_00001/rollouts", type: "output" } }));
  const found = framesAmong(files, "5:6");
  assert.deepEqual(found.map(({ step }) => step), [20, 100]);
  assert.deepEqual(found[0], { step: 20, subfolder: "rollout/run_00001/rollouts", image: "5-6_step_000020_frames.png", data: "5-6_step_000020_frames.json" });
});

test("of a long run the same films are known that its folder keeps", () => {
  for (const [moments, place] of [[[0, 1, 2, 3], 1], [[0, 2, 3, 4], 2], [[0, 2, 4, 5, 9], 2], [[0, 10, 11], 1]]) {
    assert.equal(mostCrowded(moments), place);
  }
  let films = [];
  for (let step = 0; step < 250 * 50; step += 50) films = thinned([...films, { step }]);
  const steps = films.map(({ step }) => step);
  assert.deepEqual([steps.length, steps[0], steps.at(-1)], [64, 0, 249 * 50]);
  const gaps = steps.slice(1).map((step, place) => step - steps[place]);
  assert.ok(Math.max(...gaps) <= 2 * Math.min(...gaps.slice(0, -1)));
});

test("a film is told from one of a deleted run of the same name", () => {
  const frames = { step: 0, subfolder: "rollout/a/rollouts", image: "x.png", data: "x.json" };
  assert.notEqual(keyOf({ ...frames, job: "1" }), keyOf({ ...frames, job: "2" }));
});

test("the run is known from its folder", () => {
  assert.equal(runOf("rollout/digits_00001/rollouts"), "digits_00001");
  assert.equal(runOf("rollout/digits_00001"), "digits_00001");
  for (const other of ["probes/x", "", undefined]) assert.equal(runOf(other), "");
});

test("a long history is shown from its first to its last film", () => {
  const list = Array.from({ length: 101 }, (_, index) => index);
  assert.deepEqual(spread(list, 5), [0, 25, 50, 75, 100]);
  assert.deepEqual(spread([1, 2], 5), [1, 2]);
});
