/** Brings files into a data set, a few at a time; what is there already is not sent twice. */

import { say, t } from "../language/words.js";
import { isConverted, sorted } from "./dropped.js";

const AT_ONCE = 4;

/**
 * @param {import("../server/backend.js").Backend} backend
 * @param {{path: string, file: File}[]} files
 * @param {{into?: string, progress?: (done: number, total: number) => void, signal?: AbortSignal}} options ``into`` an existing data set
 * @returns {Promise<{name: string, path: string, added: number, same: number, leftOut: string[]}>}
 */
export async function bringIn(backend, files, { into, progress = () => {}, signal } = {}) {
  const { pictures, captions, archives, left, name } = sorted(files);
  const why = (path) => (isConverted(path) ? t("convert it to JPEG or PNG first") : t("neither a picture nor a caption"));
  if (!pictures.length && !archives.length) throw new Error(left.some(isConverted) ? t("Convert these pictures to JPEG or PNG first") : t("There are no pictures among these files"));
  const set = into ? (await backend.datasets()).find((one) => one.name === into) : ((await begun(backend, name, pictures)) ?? (await backend.createDataset(name)));
  if (!set) throw new Error(t("There is no data set {name}", { name: into }));
  const told = { name: set.name, path: set.path, added: 0, same: 0, leftOut: left.map((path) => `${path}: ${why(path)}`) };
  const waiting = [...pictures, ...captions], total = waiting.length + archives.length;
  let done = 0;
  const one = async ({ path, file }) => {
    try {
      told[await backend.addFile(set.name, path, file, signal)]++;
    } catch (error) {
      if (signal?.aborted) throw error;
      told.leftOut.push(`${path}: ${say(error.message)}`);
    }
    progress(++done, total);
  };
  const worker = async () => {
    for (let next; (next = waiting.shift()); ) await one(next);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  for (const { path, file } of archives) {
    try {
      const { added, same, left_out } = await backend.addArchive(set.name, file, signal);
      told.added += added;
      told.same += same;
      told.leftOut.push(...left_out.map(say));
    } catch (error) {
      told.leftOut.push(`${path}: ${say(error.message)}`);
    }
    progress(++done, total);
  }
  return told;
}

/** A data set of this name that holds nothing but some of these pictures: they were brought in before, and cut off. */
async function begun(backend, name, pictures) {
  const sizes = new Map(pictures.map(({ path, file }) => [path, file.size]));
  const isAlike = ({ elsewhere, name: known, pictures: count }) => !elsewhere && count > 0 && count <= sizes.size && (known === name || known.startsWith(`${name} `));
  for (const set of ((await backend.datasets()) ?? []).filter(isAlike)) {
    const { entries = [] } = (await backend.dataset(set.name)) ?? {};
    if (entries.length && entries.every(({ picture, bytes }) => sizes.get(picture) === bytes)) return set;
  }
  return null;
}

/** What came of it, in one line. */
export function toldOf({ added, same, leftOut }) {
  const parts = [t("files added: {count}", { count: added })];
  if (same) parts.push(t("already there: {count}", { count: same }));
  if (leftOut.length) parts.push(t("{count} left out: {first}", { count: leftOut.length, first: leftOut[0] }));
  return parts.join(" · ");
}
