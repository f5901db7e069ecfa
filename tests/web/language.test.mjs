import assert from "node:assert/strict";
import { test } from "node:test";
import { readFileSync, readdirSync } from "node:fs";
import { LANGUAGES, explainOptions, languageOf, translateBlueprints, translateNodes, translateTemplate } from "../../web/lib/language/language.js";
import { speak, t } from "../../web/lib/language/words.js";

const web = new URL("../../web/", import.meta.url);
const modules = readdirSync(web, { recursive: true }).filter((name) => name.endsWith(".js"));
const sources = modules.map((name) => readFileSync(new URL(name.replaceAll("\\", "/"), web), "utf8"));
const code = sources.map((text) => text.replace(/\/\*[\s\S]*?\*\/|(?<=^|[ ;,{}(\[])\/\/.*$/gm, ""));
const said = new Set(code.flatMap((text) => [...text.matchAll(/\bt\("((?:[^"\\]|\\.)+)"/g)].map(([, words]) => words)));
const INDIRECT = ["LoRA saved", "Model saved", "Trained", "loss flow", "loss anti drift"]; // said through a table, or by columns of numbers
const WORD = /(?<![\w-])[A-Za-z][a-z]{2,}(?![\w:;(-])/g; // of a sentence: no class, no style, no part of a name

/** What the code holds in quotes that reads like words for people: two words or more with a space between. */
function sentences(text) {
  const literals = [...text.matchAll(/"((?:[^"\\\n]|\\.)*)"|`((?:[^`\\]|\\.)*)`/g)].map(([, plain, template]) => plain ?? template.replace(/\$\{[^}]*\}/g, "…"));
  return literals.filter((literal) => literal.includes(" ") && (literal.match(WORD) ?? []).length > 1);
}

for (const language of Object.keys(LANGUAGES).filter((name) => name !== "en")) {
  const words = JSON.parse(readFileSync(new URL(`words/${language}.json`, web), "utf8"));

  test(`every word of our panels is there in ${language}`, () => {
    assert.deepEqual([...said, ...INDIRECT].filter((text) => !(text in words)), []);
  });

  test(`no sentence of our panels is kept from ${language}`, () => {
    assert.deepEqual(code.flatMap(sentences).filter((text) => !(text in words)), []);
  });

  test(`no translation in ${language} is left over or loses a value`, () => {
    const all = sources.join("\n");
    for (const [text, translated] of Object.entries(words)) {
      assert.ok(all.includes(`"${text}"`) || all.includes(` ${text}`) || all.includes(`"${text.replaceAll(" ", "_")}"`), text); // also a column of numbers
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

test("names, categories and tooltips of nodes are translated, and nothing else", () => {
  const definitions = {
    Rollout: {
      display_name: "Rollout", category: "training/rollout/data", output_tooltips: ["y"], input: { required: { steps: ["INT", { tooltip: "x", min: 0 }], model: ["M"] } },
    },
    KSampler: { display_name: "KSampler", category: "training/rollout" },
  };
  const nodeDefs = {
    Rollout: { display_name: "रोलआउट", inputs: { steps: { tooltip: "चरण" }, gone: { tooltip: "?" }, model: { tooltip: "?" } }, outputs: { 0: { tooltip: "बैच" }, 1: { tooltip: "?" } } },
    Gone: { display_name: "?" },
  };
  translateNodes(definitions, { nodeDefs, nodeCategories: { rollout: "रोलआउट" } });
  assert.deepEqual(definitions, {
    Rollout: {
      display_name: "रोलआउट", category: "training/रोलआउट/data", output_tooltips: ["बैच"], input: { required: { steps: ["INT", { tooltip: "चरण", min: 0 }], model: ["M"] } },
    },
    KSampler: { display_name: "KSampler", category: "training/rollout" },
  });
  translateNodes(definitions, {}); // no translation, no change
});

test("what a widget offers is explained, and stays what it is", () => {
  const widgets = [{ name: "crop", value: "center", options: { values: ["center", "toString"] } }, { name: "size", options: {} }];
  explainOptions(widgets, { inputs: { crop: { options: { center: "बीच का" } }, size: { tooltip: "?" } } });
  const { values, getOptionLabel } = widgets[0].options;
  assert.deepEqual([...values, null].map(getOptionLabel), ["center (बीच का)", "toString", ""]);
  assert.deepEqual([widgets[0].value, values[0], widgets[1].options], ["center", "center", {}]);
  explainOptions(undefined, undefined);
});

test("a template's notes are translated line by line, its titles too; what nobody translated stays", () => {
  const graph = {
    nodes: [
      { type: "MarkdownNote", title: "Read me", widgets_values: ["# A\n\nmine\n**b**"] },
      { type: "Rollout", widgets_values: ["# A", 0] },
      { type: "Note", widgets_values: ["# A", 1] },
    ],
    groups: [{ title: "Loss" }],
  };
  translateTemplate(graph, { "# A": "# अ", "**b**": "**ब**", "Read me": "पढ़ें", Loss: "लॉस" });
  assert.deepEqual(graph.nodes.map(({ title, widgets_values }) => [title, widgets_values]), [["पढ़ें", ["# अ\n\nmine\n**ब**"]], [undefined, ["# A", 0]], [undefined, ["# अ", 1]]]);
  assert.equal(graph.groups[0].title, "लॉस");
  const untouched = { nodes: [{ type: "Note", title: "constructor", widgets_values: ["toString"] }] };
  translateTemplate(untouched);
  assert.deepEqual(untouched.nodes[0].widgets_values, ["toString"]);
});

test("our blueprints have the language's names, descriptions and titles, and are found by the English name; others stay", async () => {
  for (const name of readdirSync(new URL("../../subgraphs/", import.meta.url))) {
    const text = readFileSync(new URL(`../../subgraphs/${name}`, import.meta.url), "utf8"), english = name.replace(/\.json$/, "");
    const api = { getGlobalSubgraphs: async () => ({ ours: { name: english, info: { node_pack: "ours" }, data: Promise.resolve(text) }, other: { name: "toString", data: "{}" } }) };
    const lines = JSON.parse(readFileSync(new URL("../../locales/hi/main.json", import.meta.url), "utf8")).rolloutTemplates;
    translateBlueprints(api, lines);
    const { ours, other } = await api.getGlobalSubgraphs();
    const before = JSON.parse(text), after = JSON.parse(await ours.data), [whole] = after.definitions.subgraphs;
    const said = [ours.name, whole.name, whole.description, after.extra.BlueprintDescription, ...whole.nodes.map(({ title }) => title).filter(Boolean)];
    assert.deepEqual(said.filter((line) => !/[\u0900-\u097f]/.test(line)), []);
    assert.equal(whole.name, ours.name);
    assert.deepEqual(ours.info, { node_pack: "ours", search_aliases: [...before.extra.BlueprintSearchAliases, english] });
    const untold = (graph) => JSON.stringify(graph, (key, value) => (["title", "name", "description", "BlueprintDescription"].includes(key) ? undefined : value));
    assert.equal(untold(after), untold(before));
    assert.deepEqual([other.name, other.data], ["toString", "{}"]);
  }
  const api = { getGlobalSubgraphs: async () => ({ ours: { name: "LoRA Training in One Node", data: "?" } }) };
  translateBlueprints(api);
  assert.deepEqual(await api.getGlobalSubgraphs(), { ours: { name: "LoRA Training in One Node", data: "?" } });
});
