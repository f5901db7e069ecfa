/** Our panels' words in the language of the person: what has no translation is shown in English. */

let words = {};

/** @param {Record<string, string>} translations by their English words */
export function speak(translations) {
  words = translations;
}

/** ``t("{steps} steps", {steps: 600})`` in the person's language. */
export function t(text, values = {}) {
  return (words[text] ?? text).replace(/\{(\w+)\}/g, (whole, name) => (name in values ? values[name] : whole));
}
