/** Our words in the language of the person: what has no translation is shown in English. */

import { Phrasebook } from "./phrasebook.js";

const MOST_KEPT = 1000; // texts; a node's lines are drawn again and again

let words = {}, sentences = new Phrasebook(), kept = new Map();

/**
 * @param {Record<string, string>} translations of our panels' words, by the English ones
 * @param {Record<string, string>} templates of what Python says, with their translations
 */
export function speak(translations, templates = {}) {
  words = translations;
  sentences = new Phrasebook(templates);
  kept = new Map();
}

/** What Python says in English, in the person's language; a line that is not known stays as it is. */
export function say(text) {
  if (!kept.has(text)) {
    if (kept.size >= MOST_KEPT) kept.clear();
    kept.set(text, sentences.say(text));
  }
  return kept.get(text);
}

/** ``t("{steps} steps", {steps: 600})`` in the person's language. */
export function t(text, values = {}) {
  return (words[text] ?? text).replace(/\{(\w+)\}/g, (whole, name) => (name in values ? values[name] : whole));
}
