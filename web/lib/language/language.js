/** Which language the person reads, and its words. */

import { speak, t } from "./words.js";

const SETTING = "Rollout.Language";
export const LANGUAGES = { en: "English", hi: "हिन्दी" };
const NOTES = ["MarkdownNote", "Note"];

/** The language to speak: the chosen one, or by default the browser's if there is a translation. */
export function languageOf(setting, browser = []) {
  if (Object.hasOwn(LANGUAGES, setting ?? "")) return setting;
  const wanted = browser.map((tag) => tag.toLowerCase().split("-")[0]).find((tag) => Object.hasOwn(LANGUAGES, tag));
  return wanted ?? "en";
}

/** The choice among the frontend's settings. */
export const languageSetting = () => ({
  id: SETTING, name: t("Language of Rollout's panels and nodes (after a reload)"), type: "combo", defaultValue: "auto",
  options: [{ text: t("as the browser"), value: "auto" }, ...Object.entries(LANGUAGES).map(([value, text]) => ({ text, value }))],
});

/**
 * Learns the person's language; nothing of ours is on the page before.
 * @param {object} api the frontend's
 * @returns {Promise<object>} what is in ``locales/<language>``; nothing in English
 */
export async function learnLanguage(api, browser) {
  const language = languageOf(await api.getSetting(SETTING).catch(() => null), browser);
  if (language === "en") return {};
  const files = [`${language}.json`, `said.${language}.json`].map((name) => fetch(new URL(`../../words/${name}`, import.meta.url)));
  speak(...(await Promise.all(files.map(async (file) => ((await file).ok ? (await file).json() : {})))));
  const reply = await api.fetchApi("/i18n");
  return reply.ok ? ((await reply.json())[language] ?? {}) : {};
}

const wordFor = (words, text) => (Object.hasOwn(words, text) ? words[text] : text);

/**
 * Puts a language's tooltips and names into the definitions of nodes; what it does not translate stays English.
 * @param {{nodeDefs?: object, nodeCategories?: Record<string, string>}} words as in ``locales/<language>``
 */
export function translateNodes(definitions, { nodeDefs = {}, nodeCategories = {} }) {
  for (const [name, words] of Object.entries(nodeDefs)) {
    const node = definitions[name];
    if (!node) continue;
    if (words.display_name) node.display_name = words.display_name;
    if (words.description) node.description = words.description;
    node.category = node.category?.split("/").map((part) => wordFor(nodeCategories, part)).join("/");
    for (const inputs of Object.values(node.input ?? {})) {
      for (const [input, { tooltip }] of Object.entries(words.inputs ?? {})) if (tooltip && inputs?.[input]?.[1]) inputs[input][1].tooltip = tooltip;
    }
    for (const [place, { tooltip }] of Object.entries(words.outputs ?? {})) if (tooltip && node.output_tooltips?.[place]) node.output_tooltips[place] = tooltip;
  }
}

/** Shows beside each word that a widget offers what it means. What is chosen, sent and saved stays the word itself. */
export function explainOptions(widgets = [], words = {}) {
  for (const widget of widgets) {
    const meanings = words.inputs?.[widget.name]?.options;
    if (meanings) widget.options.getOptionLabel = (option) => (Object.hasOwn(meanings, option ?? "") ? `${option} (${meanings[option]})` : option ?? "");
  }
}

/** Translates a template before it is shown: its notes, line by line, and the titles of its nodes and groups. */
export function translateTemplate({ nodes, groups = [] }, lines = {}) {
  const translated = (text) => (typeof text === "string" ? text.split("\n").map((line) => wordFor(lines, line)).join("\n") : text);
  for (const part of [...nodes, ...groups]) if (part.title) part.title = translated(part.title);
  for (const note of nodes) if (NOTES.includes(note.type)) note.widgets_values = note.widgets_values.map(translated);
}

/** Lets ``getGlobalSubgraphs`` of the frontend's api give the blueprints whose names ``lines`` know in the language. */
export function translateBlueprints(api, lines = {}) {
  const given = api.getGlobalSubgraphs;
  api.getGlobalSubgraphs = async function () {
    const found = await given.call(this);
    for (const blueprint of Object.values(found)) {
      if (Object.hasOwn(lines, blueprint.name)) Object.assign(blueprint, blueprintIn(lines, blueprint, JSON.parse(await blueprint.data)));
    }
    return found;
  };
}

/** A blueprint's name, its description and the titles in it. It is found by its English words too. */
function blueprintIn(lines, { name, info }, workflow) {
  const { extra } = workflow, aliases = [...(extra.BlueprintSearchAliases ?? []), name];
  extra.BlueprintDescription = wordFor(lines, extra.BlueprintDescription);
  for (const whole of workflow.definitions.subgraphs) {
    Object.assign(whole, { name: wordFor(lines, whole.name), description: wordFor(lines, whole.description) });
    for (const node of [...workflow.nodes, ...whole.nodes]) if (node.title) node.title = wordFor(lines, node.title);
  }
  return { name: lines[name], info: { ...info, search_aliases: aliases }, data: JSON.stringify(workflow) };
}
