import assert from "node:assert/strict";
import { test } from "node:test";
import { translated } from "../../web/lib/language/faults.js";
import { Found } from "../../web/lib/views/found.js";
import { Phrasebook } from "../../web/lib/language/phrasebook.js";
import { say, speak } from "../../web/lib/language/words.js";

const book = new Phrasebook({
  "1 image": "1 तस्वीर",
  "{count:number} images": "{count} तस्वीरें",
  "{count:number} more": "{count} और",
  "{images:said} left out: {names:list}": "छोड़ी गईं {images}: {names}",
  "captions: {found} of {all}": "कैप्शन: {all} में से {found}",
  "captions: {found} of {all} ({instead})": "कैप्शन: {all} में से {found} ({instead})",
  "{word:word}: {what:said}": "{word}: {what}",
  "{file:file}: {what:said}": "{file}: {what}",
  "step {step}: {what:told}": "स्टेप {step}: {what}",
  "the folder {folder} does not exist": "फ़ोल्डर {folder} है ही नहीं",
});

test("numbers, names and paths are carried over as they are, and are put where the language wants them", () => {
  assert.equal(book.say("captions: 3 of 5"), "कैप्शन: 5 में से 3");
  assert.equal(book.say("the folder '/photos/my {cat} of 24 images' does not exist"), "फ़ोल्डर '/photos/my {cat} of 24 images' है ही नहीं");
});

test("one and many have words of their own", () => {
  assert.deepEqual(["1 image", "24 images", "1,024 images"].map((line) => book.say(line)), ["1 तस्वीर", "24 तस्वीरें", "1,024 तस्वीरें"]);
});

test("what is not known stays as it is, as a whole", () => {
  for (const line of ["", "some images", "no such 3 images", "my words: of mine", "24 images left over", "the folder  does not exist"]) assert.equal(book.say(line), line);
});

test("the most literal template wins, whatever its place in the file", () => {
  assert.equal(book.say("captions: 3 of 5 ('a photo' stands in)"), "कैप्शन: 5 में से 3 ('a photo' stands in)");
});

test("parts that are sentences are translated with the whole, and must be known unless they may be anything", () => {
  assert.equal(book.say("24 images left out: a.png, b.png, c.png, 3 more"), "छोड़ी गईं 24 तस्वीरें: a.png, b.png, c.png, 3 और");
  assert.equal(book.say("things left out: a.png"), "things left out: a.png");
  assert.equal(book.say("step 7: the folder 'x' does not exist"), "स्टेप 7: फ़ोल्डर 'x' है ही नहीं");
  assert.equal(book.say("step 7: CUDA error"), "स्टेप 7: CUDA error");
});

test("an input's name or a file's stands before what is said of it", () => {
  assert.equal(book.say("mask_folder: the folder 'x' does not exist"), "mask_folder: फ़ोल्डर 'x' है ही नहीं");
  assert.equal(book.say("my cat.png: 2 images"), "my cat.png: 2 तस्वीरें");
  assert.equal(book.say("two words: 2 images"), "two words: 2 images");
});

test("several sentences in one line, and several lines", () => {
  assert.equal(book.say("1 image; captions: 1 of 1\nmine\n2 images\n"), "1 तस्वीर; कैप्शन: 1 में से 1\nmine\n2 तस्वीरें\n");
  assert.equal(book.say("1 image; mine"), "1 image; mine");
});

test("a hostile line takes no time", () => {
  const begun = performance.now();
  for (const line of ["captions: ".repeat(2e5), "; ".repeat(1999), "step 1: ".repeat(490), "1 image; ".repeat(400)]) book.say(line);
  assert.ok(performance.now() - begun < 1000);
});

test("a person's language is spoken on nodes and in faults; English is left alone", () => {
  const reply = () => ({ error: { message: "?", details: "" }, node_errors: { 3: { errors: [{ details: "folder: the folder 'x' does not exist" }, { details: null }] } } });
  assert.deepEqual(translated(reply()), reply());
  speak({}, { "{word:word}: {what:said}": "{word}: {what}", "the folder {folder} does not exist": "फ़ोल्डर {folder} है ही नहीं" });
  assert.equal(translated(reply()).node_errors[3].errors[0].details, "folder: फ़ोल्डर 'x' है ही नहीं");
  assert.equal(say("24 images"), "24 images");
  assert.equal(translated(undefined), undefined);
  const shown = { element: { replaceChildren() {} } };
  globalThis.document = { createElement: () => ({ append() {}, classList: { add() {} }, setAttribute() {} }) };
  const found = Object.assign(new Found(), shown);
  found.show(["the folder '/a/b/c/d' does not exist", "mine"]);
  assert.equal(shown.element.title, "फ़ोल्डर '/a/b/c/d' है ही नहीं\nmine");
  delete globalThis.document;
  speak({});
});
