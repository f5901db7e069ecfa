/**
 * What Python says (on nodes, in errors), in the person's language. The sentences are English and stay so in logs and
 * consoles; here a line is recognised by a template such as "{count:number} images" and said by its translation, with
 * the values of its holes put in.
 *
 * A hole is ``{name}``: any text, carried over as it is. ``{name:number}`` holds a number only, ``{name:size}`` bytes,
 * ``{name:word}`` one word, ``{name:file}`` a file's name; ``{name:said}`` a sentence that is known itself, and is
 * translated too; ``{name:told}`` one that may be, and ``{name:parts}`` several, between commas; ``{name:list}`` names
 * that may end in how many more there are, which alone is translated.
 */

const LONGEST = 4000; // letters of a line that is looked at
const DEEPEST = 6;
const TEXT = {
  number: /^[-+]?\d[\d.,]*(e[-+]?\d+)?%?$/, size: /^\d[\d.]* [kMG]?B$/, word: /^[\p{L}_][\p{L}\p{N}_]*$/u, file: /\.[\p{L}\p{N}]{1,12}$/u,
};
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
   * Several sentences that are all known, or else the most literal template that the line fits.
   * @returns {{text: string, used: string[]}|null} ``used``: the templates
   */
  find(line, depth = 0) {
    if (!line || line.length > LONGEST || depth > DEEPEST) return null;
    return this.#several(line, "; ", depth) ?? this.#one(line, depth);
  }

  #several(line, between, depth) {
    const found = [];
    for (const part of line.split(between)) {
      if (part.length === line.length) return null;
      const known = this.find(part, depth + 1);
      if (!known) return null;
      found.push(known);
    }
    return together(found, between);
  }

  #one(line, depth) {
    for (const template of this.#templates) {
      if (!line.startsWith(template.first) || !line.endsWith(template.last)) continue;
      for (const values of valuesIn(line, template)) {
        const found = this.#filled(template, values, depth);
        if (found) return found;
      }
    }
    return null;
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
    if (kind === "parts") return together(value.split(", ").map((part) => this.find(part, depth + 1) ?? { text: part, used: [] }), ", ");
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
  return { first: literals[0], last: literals.at(-1), inner: literals.slice(1, -1), holes, weight: literals.join("").length };
}

const together = (found, between) => ({ text: found.map(({ text }) => text).join(between), used: found.flatMap(({ used }) => used) });

/**
 * What may stand in the holes: first with each as short as it can be, then with each as long as it can be, from left to
 * right. Never more than two looks along the line, which begins with ``first`` and ends with ``last``.
 */
function* valuesIn(line, { first, last, inner, holes }) {
  const end = line.length - last.length;
  if (!holes.length) return void (line === first && (yield []));
  if (first.length >= end) return;
  const starts = placesOf(inner, line, first.length, end);
  if (!starts) return;
  yield cut(line, first.length, end, inner, starts);
  const others = placesFromTheEnd(inner, line, first.length, end);
  if (others?.some((place, at) => place !== starts[at])) yield cut(line, first.length, end, inner, others);
}

/** Where each literal stands for the first time behind the one before; null where one does not. */
function placesOf(literals, line, from, end) {
  const places = [];
  for (const literal of literals) {
    const place = line.indexOf(literal, from + 1); // a hole holds something
    if (place < 0 || place + literal.length >= end) return null;
    places.push(place);
    from = place + literal.length;
  }
  return places;
}

/** Where each stands for the last time before the one behind. */
function placesFromTheEnd(literals, line, from, end) {
  const places = [];
  for (const literal of [...literals].reverse()) {
    const place = line.lastIndexOf(literal, end - literal.length - 1);
    if (place <= from) return null;
    places.unshift(place);
    end = place;
  }
  return places;
}

function cut(line, from, end, literals, places) {
  const values = literals.map((literal, at) => {
    const value = line.slice(from, places[at]);
    from = places[at] + literal.length;
    return value;
  });
  return [...values, line.slice(from, end)];
}
