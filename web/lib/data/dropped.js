/** Files that a person dropped or chose: which of them a data set takes, under which names. */

const PICTURE = /\.(png|jpe?g|jfif|webp|avif|bmp|gif|tiff?)$/i;
const CONVERTED = /\.(heic|heif|jxl|cr[23]|nef|arw|dng|raf|orf|psd|svg)$/i;
const CAPTION = /\.(txt|caption)$/i;
const ARCHIVE = /\.zip$/i;

export const isPicture = (name) => PICTURE.test(name);
/** A picture for people, which the trainer does not read. */
export const isConverted = (name) => CONVERTED.test(name);
export const isArchive = (name) => ARCHIVE.test(name);

/**
 * All files of a drop, those in folders too. It must be called while the drop is handled: later its items are gone.
 * @param {DataTransfer} carried
 * @returns {Promise<{path: string, file: File}[]>}
 */
export async function filesOf(carried) {
  const entries = [...(carried.items ?? [])].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return [...carried.files].map((file) => ({ path: file.name, file }));
  return (await Promise.all(entries.map((entry) => walk(entry, "")))).flat();
}

async function walk(entry, above) {
  const path = above + entry.name;
  if (entry.isFile) return [{ path, file: await new Promise((done, failed) => entry.file(done, failed)) }];
  const reader = entry.createReader(), found = [];
  for (let part; (part = await new Promise((done, failed) => reader.readEntries(done, failed))).length; ) found.push(...part);
  return (await Promise.all(found.map((child) => walk(child, `${path}/`)))).flat();
}

/** The same of an ``<input type=file>``, also one that takes a folder. */
export function filesChosen(input) {
  return [...input.files].map((file) => ({ path: file.webkitRelativePath || file.name, file }));
}

/**
 * What a data set takes of these files, and the name that suggests itself for it: that of the folder or archive.
 * A folder around everything is left out of the paths.
 */
export function sorted(files, now = new Date()) {
  const visible = files.filter(({ path }) => !path.split("/").some((part) => part.startsWith(".") || part === "__MACOSX"));
  const tops = new Set(visible.map(({ path }) => (path.includes("/") ? path.split("/")[0] : "")));
  const [top] = tops.size === 1 ? tops : [""];
  const inner = visible.map(({ path, file }) => ({ file, path: top ? path.slice(top.length + 1) : path }));
  const of = (pattern) => inner.filter(({ path }) => pattern.test(path));
  const pictures = of(PICTURE), captions = of(CAPTION), archives = of(ARCHIVE);
  const left = inner.filter(({ path }) => ![PICTURE, CAPTION, ARCHIVE].some((pattern) => pattern.test(path))).map(({ path }) => path);
  const day = now.toISOString().slice(0, 10);
  return { pictures, captions, archives, left, name: plain(top || archives[0]?.path.replace(ARCHIVE, "") || `photos ${day}`) };
}

/** A name as it can stand among other words: what breaks a line, or turns the order of letters behind it, becomes a question mark. */
export const legible = (name) => name.replace(/[\x00-\x1f\x7f-\x9f\u061c\u2028-\u202e\u2066-\u2069]/g, "?");

/** A name that every system takes for a folder. */
export function plain(name) {
  const cleaned = name.replace(/[\x00-\x1f\x7f<>:"/\\|?*]+/g, " ").replace(/\s+/g, " ").trim().replace(/^\.+/, "").slice(0, 60).replace(/[. ]+$/, "");
  return /^(con|prn|aux|nul|com\d|lpt\d)$/i.test(cleaned) || !cleaned ? "photos" : cleaned;
}

/** Whether a drop is pictures to train on, rather than one file that the frontend may open as a workflow. */
export function isForTraining(carried) {
  const items = [...(carried?.items ?? [])].filter(({ kind }) => kind === "file");
  if (items.some((item) => item.webkitGetAsEntry?.()?.isDirectory)) return true;
  const names = [...(carried?.files ?? [])].map(({ name }) => name);
  return names.some(isArchive) || names.filter((name) => isPicture(name) || isConverted(name)).length > 1;
}
