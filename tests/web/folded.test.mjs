import assert from "node:assert/strict";
import { test } from "node:test";
import { expertInputs, foldable } from "../../web/lib/graph/folded.js";

const data = { input: { required: { steps: ["INT", { default: 5 }], order: ["INT", { default: 2, advanced: true }] }, optional: { kind: [["a", "b"], { advanced: true }], model: ["M"] }, hidden: { id: "UNIQUE_ID" } } };

test("inputs for experts are folded while they say nothing of their own", () => {
  const experts = expertInputs(data);
  assert.deepEqual([...experts], [["order", 2], ["kind", "a"]]);
  const widgets = [{ name: "steps", value: 5 }, { name: "order", value: 2 }, { name: "kind", value: "b" }];
  assert.deepEqual(foldable(widgets, experts, () => false).map(({ name }) => name), ["order"]);
  assert.deepEqual(foldable(widgets, experts, (name) => name === "order"), []);
  assert.equal(expertInputs(undefined).size, 0);
});
