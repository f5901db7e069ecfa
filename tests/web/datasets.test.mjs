import assert from "node:assert/strict";
import { test } from "node:test";
import { bringIn, toldOf } from "../../web/lib/data/bring_in.js";
import { bucketSizes, cutOf } from "../../web/lib/data/buckets.js";
import { History, changesOf, chosen, isLong } from "../../web/lib/data/caption_edits.js";
import { isForTraining, legible, plain, sorted } from "../../web/lib/data/dropped.js";
import { lastOf } from "../../web/lib/language/paths.js";
import { inSight } from "../../web/lib/elements/virtual_list.js";

const files = (...paths) => paths.map((path) => ({ path, file: path }));

test("a folder gives its name, and what is hidden or foreign stays outside", () => {
  const found = sorted(files("my cat/1.jpg", "my cat/1.txt", "my cat/sub/2.PNG", "my cat/notes.pdf", "my cat/.DS_Store", "__MACOSX/my cat/._1.jpg"));
  assert.equal(found.name, "my cat");
  assert.deepEqual(found.pictures.map(({ path }) => path), ["1.jpg", "sub/2.PNG"]);
  assert.deepEqual(found.captions.map(({ path }) => path), ["1.txt"]);
  assert.deepEqual(found.left, ["notes.pdf"]);
  assert.equal(sorted(files("1.jpg", "2.jpg"), new Date("2026-05-04")).name, "photos 2026-05-04");
  assert.equal(sorted(files("cats.zip")).name, "cats");
});

test("every name becomes one that every system takes", () => {
  assert.deepEqual(["a/b:c", "..", "CON", "  x. ", "मेरी बिल्ली", "a\u0000b", "", "y".repeat(200)].map((name) => plain(name).slice(0, 12)),
    ["a b c", "photos", "photos", "x", "मेरी बिल्ली", "a b", "photos", "y".repeat(12)]);
});

test("no name turns the words behind it round", () => {
  assert.deepEqual(["a\u202egpj.png", "a\nb", "बिल्ली 👨‍👩‍👧.png", "תמונה.png"].map(legible), ["a?gpj.png", "a?b", "बिल्ली 👨‍👩‍👧.png", "תמונה.png"]);
});

test("one picture may be a workflow, several are photos", () => {
  const carried = (names, directory = false) => ({ files: names.map((name) => ({ name })), items: names.map(() => ({ kind: "file", webkitGetAsEntry: () => ({ isDirectory: directory }) })) });
  assert.deepEqual([["a.png"], ["a.png", "b.jpg"], ["a.zip"], ["a.json", "b.png"], ["a.HEIC", "b.HEIC"]].map((names) => isForTraining(carried(names))), [false, true, true, false, true]);
  assert.equal(isForTraining(carried(["folder"], true)), true);
  assert.equal(isForTraining(undefined), false);
});

test("files come in, and what the server refuses is told", async () => {
  const sent = [];
  const backend = {
    datasets: async () => [], createDataset: async (name) => ({ name: `${name} 2`, path: "/data/x" }),
    addFile: async (name, path) => {
      sent.push([name, path]);
      if (path === "2.jpg") throw new Error("too large");
      return path === "3.jpg" ? "same" : "added";
    },
    addArchive: async () => ({ added: 5, same: 0, left_out: ["x.exe: no"] }),
  };
  const seen = [];
  const told = await bringIn(backend, files("c/1.jpg", "c/2.jpg", "c/3.jpg", "c/1.txt", "c/more.zip", "c/x.pdf"), { progress: (done, total) => seen.push([done, total]) });
  assert.deepEqual([told.name, told.added, told.same, told.leftOut.length], ["c 2", 7, 1, 3]);
  assert.deepEqual(sent.map(([, path]) => path).sort(), ["1.jpg", "1.txt", "2.jpg", "3.jpg"]);
  assert.deepEqual(seen.at(-1), [5, 5]);
  assert.match(toldOf(told), /files added: 7 · already there: 1 · 3 left out/);
  await assert.rejects(bringIn(backend, files("a.pdf")), /no pictures/);
  await assert.rejects(bringIn(backend, files("a.HEIC", "b.heic")), /Convert these pictures to JPEG or PNG/);
  assert.deepEqual((await bringIn(backend, files("a.jpg", "b.HEIC"))).leftOut, ["b.HEIC: convert it to JPEG or PNG first"]);
});

test("what was cut off goes on where it was; the same names of other pictures are a set of their own", async () => {
  const photo = (path, size) => ({ path, file: { size } });
  const kept = [{ name: "c", path: "/c", pictures: 2 }, { name: "c 2", path: "/c 2", pictures: 1 }, { name: "cats", path: "/cats", pictures: 1 }];
  const entries = { c: [{ picture: "1.jpg", bytes: 10 }, { picture: "old.jpg", bytes: 9 }], "c 2": [{ picture: "1.jpg", bytes: 10 }], cats: [{ picture: "1.jpg", bytes: 10 }] };
  const made = [];
  const backend = {
    datasets: async () => kept, dataset: async (name) => ({ entries: entries[name] }), addFile: async (_, path) => (path === "1.jpg" ? "same" : "added"),
    createDataset: async (name) => (made.push(name), { name: "c 3", path: "/c 3" }),
  };
  const again = await bringIn(backend, [photo("c/1.jpg", 10), photo("c/2.jpg", 20)]);
  assert.deepEqual([again.name, again.added, again.same, made], ["c 2", 1, 1, []]);
  assert.equal((await bringIn(backend, [photo("c/1.jpg", 11), photo("c/2.jpg", 20)])).name, "c 3");
  assert.deepEqual(made, ["c"]);
});

const entry = (picture, caption, more = {}) => ({ picture, caption, version: `v-${picture}`, flags: [], width: 10, height: 10, ...more });

test("a word is added, removed and replaced as a whole word, once", () => {
  const entries = [entry("1", "cat, on a mat"), entry("2", "a category"), entry("3", "Cat and cat"), entry("4", "")];
  const after = (operation, word, other) => changesOf(entries, operation, word, other).map(({ picture, caption }) => [picture, caption]);
  assert.deepEqual(after("first", "cat"), [["2", "cat, a category"], ["4", "cat"]]);
  assert.deepEqual(after("last", "photo"), [["1", "cat, on a mat, photo"], ["2", "a category, photo"], ["3", "Cat and cat, photo"], ["4", "photo"]]);
  assert.deepEqual(after("remove", "cat"), [["1", "on a mat"], ["3", "and"]]);
  assert.deepEqual(after("replace", "cat", "$& dog"), [["1", "$& dog, on a mat"], ["3", "$& dog and $& dog"]]);
  assert.deepEqual(after("remove", " "), []);
  assert.deepEqual(changesOf([entry("1", "बिल्ली, फ़ोटो")], "replace", "बिल्ली", "कुत्ता").map(({ caption }) => caption), ["कुत्ता, फ़ोटो"]);
  assert.deepEqual(changesOf([{ ...entry("1", ""), flags: ["linked"] }], "first", "sks"), []); // the server would refuse all
  assert.deepEqual(changesOf([entry("1", "a (b) c+")], "remove", "c+")[0].caption, "a (b)");
});

test("a step back starts from what is there now", () => {
  const history = new History();
  history.note([{ picture: "1", before: "old" }, { picture: "gone", before: "x" }]);
  history.note([]);
  assert.equal(history.length, 1);
  assert.deepEqual(history.undo((picture) => (picture === "1" ? entry("1", "new") : undefined)), [{ picture: "1", caption: "old", was: "v-1" }]);
  assert.deepEqual(history.undo(() => undefined), []);
});

test("entries are found, filtered and sorted", () => {
  const entries = [entry("b.png", "dog"), entry("a.png", "Cat", { flags: ["small"], width: 5 })];
  const names = (wish) => chosen(entries, wish).map(({ picture }) => picture);
  assert.deepEqual(names({}), ["b.png", "a.png"]);
  assert.deepEqual(names({ search: "CAT" }), ["a.png"]);
  assert.deepEqual(names({ flag: "small" }), ["a.png"]);
  assert.deepEqual(names({ sort: "smallest" }), ["a.png", "b.png"]);
});

test("of ten thousand rows only those in sight are made", () => {
  assert.deepEqual(inSight(0, 500, 100, 10_000), [0, 8]);
  assert.deepEqual(inSight(500_000, 500, 100, 10_000), [4997, 5008]);
  assert.deepEqual(inSight(0, 500, 100, 2), [0, 2]);
});

test("pictures are cut as the data set cuts them", () => {
  assert.deepEqual(new Set(bucketSizes(192).map(String)), new Set(["192,192", "128,256", "256,128"]));
  assert.deepEqual(cutOf([400, 200], 64), { size: [64, 64], share: [0.5, 1], lost: 0.5 });
  assert.deepEqual(cutOf([400, 200], 192, true), { size: [256, 128], share: [1, 1], lost: 0 });
  assert.equal(cutOf([0, 0], 64), null);
});

test("a caption is called long only where it surely is, in every script", () => {
  const words = (count, word = "cat") => Array(count).fill(word).join(" ");
  assert.deepEqual([isLong(""), isLong(words(75)), isLong(words(76)), isLong(words(40, "cat,")), isLong(words(76, "बिल्ली"))], [false, false, true, true, true]);
  assert.ok(!isLong("!".repeat(500)));
});

test("of a folder's path the end is shown", () => {
  assert.equal(lastOf("/srv/me/input/datasets/my cat", 2), "…/datasets/my cat");
  assert.equal(lastOf("D:\\photos\\me\\cats", 2), "…/me/cats");
  assert.deepEqual(["cats", "my/cats", ""].map((path) => lastOf(path, 2)), ["cats", "my/cats", ""]);
});
