import assert from "node:assert/strict";
import { test } from "node:test";
import { readFileSync, readdirSync } from "node:fs";
import { LANGUAGES, languageOf, translateNodes } from "../../web/lib/language.js";
import { speak, t } from "../../web/lib/words.js";

const web = new URL("../../web/", import.meta.url);
const sources = ["rollout.js", ...readdirSync(new URL("lib/", web)).map((name) => `lib/${name}`)].map((name) => readFileSync(new URL(name, web), "utf8"));
const said = new Set(sources.flatMap((text) => [...text.matchAll(/\bt\("((?:[^"\\]|\\.)+)"/g)].map(([, words]) => words)));
const INDIRECT = ["LoRA saved", "Model saved", "Trained"]; // said through a table

for (const language of Object.keys(LANGUAGES).filter((name) => name !== "en")) {
  const words = JSON.parse(readFileSync(new URL(`words/${language}.json`, web), "utf8"));

  test(`every word of our panels is there in ${language}`, () => {
    assert.deepEqual([...said, ...INDIRECT].filter((text) => !(text in words)), []);
  });

  test(`no translation in ${language} is left over or loses a value`, () => {
    const all = sources.join("\n");
    for (const [text, translated] of Object.entries(words)) {
      assert.ok(all.includes(`"${text}"`) || all.includes(` ${text}`), text);
      const values = (line) => (line.match(/\{\w+\}/g) ?? []).sort();
      assert.deepEqual(values(translated), values(text), text);
      assert.notEqual(translated.trim(), "");
    }
  });
}

test("values are put in, and what is not translated stays English", () => {
  speak({ "{steps} steps": "{steps} चरण" });
  assert.equal(t("{steps} steps", { steps: 5 }), "5 चरण");
  assert.equal(t("unheard of {x}", { x: "{steps}" }), "unheard of {steps}");
  speak({});
});

test("the chosen language wins, then the browser's, then English", () => {
  assert.deepEqual([languageOf("hi", ["en"]), languageOf("auto", ["fr-FR", "hi-IN", "en"]), languageOf(null, ["fr"]), languageOf("toString", [])], ["hi", "hi", "en", "en"]);
});

test("names and tooltips of nodes are translated, and nothing else", () => {
  const definitions = { Rollout: { display_name: "Rollout", input: { required: { steps: ["INT", { tooltip: "x", min: 0 }], model: ["M"] } } } };
  translateNodes(definitions, { Rollout: { display_name: "रोलआउट", inputs: { steps: { tooltip: "चरण" }, gone: { tooltip: "?" }, model: { tooltip: "?" } } }, Gone: { display_name: "?" } });
  assert.deepEqual(definitions, { Rollout: { display_name: "रोलआउट", input: { required: { steps: ["INT", { tooltip: "चरण", min: 0 }], model: ["M"] } } } });
});
