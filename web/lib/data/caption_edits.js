/** Changes of captions: of one, or of many at once by a word, and the way back. */

/** ``cat`` as a whole word or tag, whatever stands around it. */
function pattern(word) {
  const escaped = word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
  return new RegExp(`(?<![\\p{L}\\p{M}\\p{N}_])${escaped}(?![\\p{L}\\p{M}\\p{N}_])`, "giu");
}

/** Captions are sentences or lists of tags; what a word leaves behind is made tidy. */
const tidy = (caption) => caption.replace(/[ \t]+/g, " ").replace(/ ,/g, ",").replace(/,(\s*,)+/g, ",").replace(/^[\s,]+|[\s,]+$/g, "");

/** @type {Record<string, (caption: string, word: string, other: string) => string>} */
export const OPERATIONS = {
  first: (caption, word) => (pattern(word).test(caption) ? caption : [word, caption].filter(Boolean).join(", ")),
  last: (caption, word) => (pattern(word).test(caption) ? caption : [caption, word].filter(Boolean).join(", ")),
  remove: (caption, word) => (pattern(word).test(caption) ? tidy(caption.replace(pattern(word), "")) : caption),
  replace: (caption, word, other) => (pattern(word).test(caption) ? tidy(caption.replace(pattern(word), () => other)) : caption),
};

/**
 * @param {{picture: string, caption: string, version: string}[]} entries
 * @returns {{picture: string, caption: string, was: string}[]} the changes that an operation makes
 */
export function changesOf(entries, operation, word, other = "") {
  if (!word.trim()) return [];
  const ours = entries.filter(({ flags }) => !flags?.includes("linked")); // the others cannot be written
  return ours.flatMap(({ picture, caption, version }) => {
    const changed = OPERATIONS[operation](caption, word.trim(), other.trim());
    return changed === caption ? [] : [{ picture, caption: changed, was: version }];
  });
}

/** What was done, so that it can be undone: each step is a list of captions as they were. */
export class History {
  #steps = [];

  get length() {
    return this.#steps.length;
  }

  /** @param {{picture: string, before: string}[]} captions */
  note(captions) {
    if (captions.length) this.#steps.push(captions);
  }

  /** The changes that take the last step back, from what is there now. */
  undo(entryOf) {
    return (this.#steps.pop() ?? []).flatMap(({ picture, before }) => {
      const entry = entryOf(picture);
      return entry ? [{ picture, caption: before, was: entry.version }] : [];
    });
  }
}

const SORTS = {
  name: () => 0,
  caption: (a, b) => a.caption.localeCompare(b.caption),
  shortest: (a, b) => a.caption.length - b.caption.length,
  smallest: (a, b) => a.width * a.height - b.width * b.height,
};

/** The entries that are asked for, in the order that is asked for. */
export function chosen(entries, { search = "", flag = "", sort = "name" }) {
  const wanted = search.trim().toLowerCase();
  const isWanted = ({ picture, caption, flags }) => (!flag || flags.includes(flag)) && (!wanted || `${picture}\n${caption}`.toLowerCase().includes(wanted));
  const found = entries.filter(isWanted);
  return sort === "name" ? found : found.sort(SORTS[sort]);
}

const WINDOW = 75; // tokens that CLIP reads at once

/**
 * Whether a caption is surely longer than one window of CLIP: every word and every mark is a token at least. What is
 * cut, the model decides; Encode Dataset says so before the training.
 */
export function isLong(caption) {
  return (caption.match(/[\p{L}\p{M}]+|\p{N}|[^\s\p{L}\p{M}\p{N}]+/gu) ?? []).length > WINDOW;
}
