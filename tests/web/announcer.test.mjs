import assert from "node:assert/strict";
import { test } from "node:test";
import { Announcer } from "../../web/lib/trainings/announcer.js";

/** A page that nobody looks at, and what a browser has for it. */
function away(permission = "granted") {
  const shown = [], listeners = {};
  let noticed = () => {};
  globalThis.MutationObserver = class {
    constructor(callback) { noticed = callback; }
    observe() {}
    disconnect() { noticed = () => {}; }
  };
  const listen = (kind, listener) => (listeners[kind] = listener);
  const page = { title: "ComfyUI", hidden: true, head: {}, hasFocus: () => false, addEventListener: listen, defaultView: { addEventListener: listen, focus() {} } };
  class Notice {
    static permission = permission;
    static async requestPermission() { return (Notice.permission = "granted"); }
    constructor(title, { body }) { shown.push([title, body]); }
  }
  const announcer = new Announcer(page, Notice);
  delete globalThis.MutationObserver;
  return { page, shown, announcer, look: () => listeners.focus(), retitle: (title) => ((page.title = title), noticed()) };
}

test("who looks elsewhere sees it in the title, until they look", () => {
  const { page, announcer, look, retitle, shown } = away();
  announcer.tell("finished", "LoRA saved", "600 steps");
  assert.equal(page.title, "✓ LoRA saved · ComfyUI");
  retitle("*cats - ComfyUI");
  assert.equal(page.title, "✓ LoRA saved · *cats - ComfyUI");
  assert.deepEqual(shown, [["LoRA saved", "600 steps"]]);
  look();
  assert.equal(page.title, "*cats - ComfyUI");
  retitle("dogs");
  assert.equal(page.title, "dogs");
});

test("who looks at the page is told nothing, and nobody is told who did not allow it", async () => {
  const seen = away();
  Object.assign(seen.page, { hidden: false, hasFocus: () => true });
  seen.announcer.tell("failed", "Failed", "");
  assert.deepEqual([seen.page.title, seen.shown], ["ComfyUI", []]);
  const asked = away("default");
  asked.announcer.tell("finished", "Trained", "");
  assert.deepEqual(asked.shown, []);
  assert.ok(asked.announcer.mayAsk);
  assert.ok(await asked.announcer.ask());
  assert.ok(!asked.announcer.mayAsk);
  asked.announcer.tell("finished", "Trained", "");
  assert.equal(asked.shown.length, 1);
});
