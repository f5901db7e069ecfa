/** Which language the person reads, and its words. */

export const SETTING = "Rollout.Language";
export const LANGUAGES = { en: "English", hi: "हिन्दी" };

/** The language to speak: the chosen one, or by default the browser's if there is a translation. */
export function languageOf(setting, browser = []) {
  if (Object.hasOwn(LANGUAGES, setting ?? "")) return setting;
  const wanted = browser.map((tag) => tag.toLowerCase().split("-")[0]).find((tag) => Object.hasOwn(LANGUAGES, tag));
  return wanted ?? "en";
}

/** Puts a language's names and tooltips into the definitions of nodes; what it does not translate stays English. */
export function translateNodes(definitions, translations) {
  for (const [name, words] of Object.entries(translations ?? {})) {
    const node = definitions[name];
    if (!node) continue;
    if (words.display_name) node.display_name = words.display_name;
    if (words.description) node.description = words.description;
    for (const inputs of Object.values(node.input ?? {})) {
      for (const [input, { tooltip }] of Object.entries(words.inputs ?? {})) if (tooltip && inputs?.[input]?.[1]) inputs[input][1].tooltip = tooltip;
    }
  }
}
