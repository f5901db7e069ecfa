import assert from "node:assert/strict";
import { test } from "node:test";
import { seriesOf, sheetAt } from "../../web/lib/sheets.js";

const file = (name) => ({ path: `samples/${name}`, view: { filename: name, subfolder: "rollout/a/samples" } });
const prompts = { class_type: "RolloutSamplePrompts", inputs: { prompts: "a cat\n\n a dog ", count: 2, seed: 7, guidance: 5, steps: 28, model: ["1", 0] }, _meta: { title: "My prompts" } };

test("what a node drew is in order of training, and by node, in subgraphs too", () => {
  const found = seriesOf([file("11_step_000200.png"), file("11_step_000100.png"), file("5-3_step_000100.png"), { path: "rollouts/6_step_000100.png", view: { filename: "6_step_000100.png" } }], { 11: prompts });
  assert.deepEqual(found.map(({ node, sheets }) => [node, sheets.map(({ step }) => step)]), [["11", [100, 200]], ["5:3", [100]]]);
  assert.equal(found[0].title, "My prompts");
  assert.equal(found[0].facts, "seed 7 · guidance 5 · steps 28");
});

test("every prompt has its row, whatever the size of the copy", () => {
  const [{ items }] = seriesOf([file("11_step_000100.png")], { 11: prompts });
  assert.deepEqual(items.map(({ name }) => name), ["a cat", "a dog"]);
  assert.deepEqual(items[1].places({ width: 1026, height: 1026 }), [{ x: 0, y: 514, width: 512, height: 512 }, { x: 514, y: 514, width: 512, height: 512 }]);
  const [small] = items[1].places({ width: 256, height: 256 });
  assert.ok(Math.abs(small.y - 128) <= 1 && Math.abs(small.width - 127) <= 1);
});

test("classes are columns; where none is chosen, or the node is unknown, the sheet is shown whole", () => {
  const images = (labels) => ({ class_type: "RolloutSampleImages", inputs: { labels, count: 2 } });
  const [{ items }] = seriesOf([file("8_step_000100.png")], { 8: images("1-2, 7") });
  assert.deepEqual(items.map(({ name }) => name), ["1", "2", "7"]);
  assert.deepEqual(items[2].places({ width: 148, height: 98 }).map(({ x, y }) => [x, y]), [[100, 0], [100, 50]]);
  for (const prompt of [{ 8: images("") }, {}]) {
    const [whole] = seriesOf([file("8_step_000100.png")], prompt);
    assert.deepEqual(whole.items[0].places({ width: 10, height: 20 }), [{ x: 0, y: 0, width: 10, height: 20 }]);
  }
});

test("a step without samples shows those before it", () => {
  const sheets = [100, 200].map((step) => ({ step }));
  assert.deepEqual([50, 100, 150, 999].map((step) => sheetAt(sheets, step).step), [100, 100, 100, 200]);
});
