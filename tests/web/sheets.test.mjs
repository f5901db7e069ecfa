import assert from "node:assert/strict";
import { test } from "node:test";
import { filmSeries, seriesOf, sheetAt, triesOf } from "../../web/lib/samples/sheets.js";

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

test("recorded rollouts are a series of items: where the model had arrived, however many steps it took", async () => {
  const film = (name) => ({ path: `rollouts/${name}`, view: { filename: name, subfolder: "rollout/a/rollouts" } });
  const files = ["9_step_000010_frames.json", "9_step_000010_frames.png", "9_step_000010.png", "9_step_000005_frames.json", "9_step_000005_frames.png"].map(film);
  const read = ({ data }) => Promise.resolve({ items: 4, cell: [16, 8], sampler: "euler", data });
  const [{ node, title, facts, sheets, items }] = await filmSeries(files, { 9: { class_type: "Rollout", _meta: { title: "Rollout" } } }, read);
  assert.deepEqual([node, title, facts], ["9", "Rollout: rolled out", "euler"]);
  assert.deepEqual(sheets.map(({ step, view }) => [step, view.filename]), [[5, "9_step_000005_frames.png"], [10, "9_step_000010_frames.png"]]);
  assert.deepEqual(items.map(({ name }) => name), ["item 1", "item 2", "item 3", "item 4"]);
  for (const height of [32, 96]) assert.deepEqual(items[2].places({ width: 64, height }), [{ x: 32, y: height - 8, width: 16, height: 8 }]);
  assert.deepEqual(items[1].places({ width: 32, height: 48 }), [{ x: 8, y: 44, width: 8, height: 4 }]); // a smaller copy
  assert.deepEqual(await filmSeries([], {}, read), []);
});

test("what a graph without a training drew is one series of the nodes that draw the same prompts", () => {
  const drawn = (title, text) => ({ class_type: "RolloutSamplePrompts", inputs: { prompts: text, count: 1, seed: 7 }, _meta: { title } });
  const prompt = { 1: { class_type: "RolloutLoadPretrained", inputs: {} }, 2: drawn("Without", "a cat\na dog"), 4: drawn("With", "a cat\na dog"), 6: drawn("Another", "a cow") };
  const image = (name) => ({ images: [{ filename: name, subfolder: "samples", type: "output" }] });
  const job = { id: "j", prompt, outputs: { 2: image("2.png"), 4: image("4.png"), 6: image("6.png") } };
  const found = triesOf(job);
  assert.deepEqual(found.map(({ items, sheets }) => [items.map(({ name }) => name), sheets.map(({ step, name, view }) => [step, name, view.filename, view.job])]), [
    [["a cat", "a dog"], [[0, "Without", "2.png", "j"], [1, "With", "4.png", "j"]]], [["a cow"], [[0, "Another", "6.png", "j"]]],
  ]);
  assert.deepEqual(triesOf({ ...job, prompt: { ...prompt, 9: { class_type: "RolloutOptimizerStep", inputs: {} } } }), []);
  assert.deepEqual(triesOf({ ...job, outputs: {} }), []);
  assert.deepEqual(triesOf(null), []);
});
