import assert from "node:assert/strict";
import { test } from "node:test";
import { sortTemplates } from "../../web/lib/server/template_order.js";

test("our templates come by name, and those of other packs as they were", async () => {
  const api = { prefix: "/api", async getWorkflowTemplates() {
    return { theirs: ["b", "a"], "any folder": ["quickstart_digits", "comfyui_train_any_model", "lora_sd15"], from: [this.prefix] };
  } };
  sortTemplates(api, "quickstart_digits");
  assert.deepEqual(await api.getWorkflowTemplates(), {
    theirs: ["b", "a"], "any folder": ["comfyui_train_any_model", "lora_sd15", "quickstart_digits"], from: ["/api"],
  });
});

test("a frontend that has no such list stays as it is", () => {
  const api = {};
  sortTemplates(api, "quickstart_digits");
  assert.deepEqual(Object.keys(api), []);
});
