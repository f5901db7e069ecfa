/**
 * What Python says (on nodes, in errors), in the person's language. The sentences are English and stay so in logs and
 * consoles; here a line is recognised by a template such as "{count:number} images" and said by its translation, with
 * the values of its holes put in.
 *
 * A hole is ``{name}``: any text, carried over as it is. ``{name:number}`` holds a number only, ``{name:word}`` one word,
 * ``{name:file}`` a file's name; ``{name:said}`` a sentence that is known itself, and is translated too; ``{name:told}``
 * one that may be; ``{name:list}`` names that may end in how many more there are, which is translated.
 */

const LONGEST = 4000; // letters of a line that is looked at
const DEEPEST = 6;
const TEXT = { number: /^[-+]?\d[\d.,]*(e[-+]?\d+)?%?$/, word: /^[\p{L}_][\p{L}\p{N}_]*$/u, file: /\.[\p{L}\p{N}]{1,12}$/u };
const MORE = /^(.*[,;] )(\S+ more)$/s;

export class Phrasebook {
  #templates;

  /** @param {Record<string, string>} translations by their English templates */
  constructor(translations = {}) {
    this.#templates = Object.entries(translations).map(([english, translated]) => ({ english, translated, ...parsed(english) }))
      .sort((a, b) => b.weight - a.weight);
  }

  /** A text of several lines, each in the language if it is known, and else as it is. */
  say(text) {
    return text.split("\n").map((line) => this.find(line)?.text ?? line).join("\n");
  }

  /**
   * The most literal template that a line fits; a line of several sentences is known if all of them are.
   * @returns {{text: string, used: string[]}|null} ``used``: the templates
   */
  find(line, depth = 0) {
    if (!line || line.length > LONGEST || depth > DEEPEST) return null;
    for (const template of this.#templates) {
      const values = valuesIn(line, template);
      const found = values && this.#filled(template, values, depth);
      if (found) return found;
    }
    const parts = line.split("; ");
    if (parts.length < 2) return null;
    const found = parts.map((part) => this.find(part, depth + 1));
    return found.every(Boolean) ? { text: found.map(({ text }) => text).join("; "), used: found.flatMap(({ used }) => used) } : null;
  }

  /** The translation with its values; null where a value is not of its hole's kind. */
  #filled({ english, translated, holes }, values, depth) {
    const used = [english], put = {};
    for (const [place, { name, kind }] of holes.entries()) {
      const value = this.#value(kind, values[place], depth);
      if (!value) return null;
      put[name] = value.text;
      used.push(...value.used);
    }
    return { text: translated.replace(/\{(\w+)\}/g, (whole, name) => put[name] ?? whole), used };
  }

  #value(kind, value, depth) {
    const same = { text: value, used: [] };
    if (Object.hasOwn(TEXT, kind)) return TEXT[kind].test(value) ? same : null;
    if (kind === "said") return this.find(value, depth + 1);
    if (kind === "told") return this.find(value, depth + 1) ?? same;
    const [, names, more] = (kind === "list" && MORE.exec(value)) || [];
    const rest = more && this.find(more, depth + 1);
    return rest ? { text: names + rest.text, used: rest.used } : same;
  }
}

/** The literals of a template and the holes between them; ``weight``: how many letters are literal. */
function parsed(english) {
  const parts = english.split(/\{(\w+)(?::(\w+))?\}/);
  const literals = parts.filter((_, place) => place % 3 === 0);
  const holes = literals.slice(1).map((_, place) => ({ name: parts[3 * place + 1], kind: parts[3 * place + 2] ?? "" }));
  return { literals, holes, weight: literals.join("").length };
}

/** What stands in the holes, each as short as it can be; null where the line does not fit. One look, from left to right. */
function valuesIn(line, { literals, holes }) {
  if (!holes.length) return line === literals[0] ? [] : null;
  const first = literals[0], last = literals.at(-1), end = line.length - last.length;
  if (!line.startsWith(first) || !line.endsWith(last)) return null;
  const values = [];
  let from = first.length;
  for (const literal of literals.slice(1, -1)) {
    const place = line.indexOf(literal, from + 1); // a hole holds something
    if (place < 0 || place + literal.length > end) return null;
    values.push(line.slice(from, place));
    from = place + literal.length;
  }
  if (from >= end) return null;
  return [...values, line.slice(from, end)];
}
