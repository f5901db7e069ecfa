/** Paths as people read them: what a file is known by is the end. */

const KEPT = 3; // folders of a path, the file included

/** A line whose paths are cut from the left: where a file is, its last folders tell; the title has all of it. */
export function shortened(line) {
  return line.replace(/(?:[A-Za-z]:\\|~?\/)[^\s,;:"']+/g, (path) => lastOf(path, KEPT));
}

/** ``…/datasets/my cat``: a path, cut from the left to so many folders. */
export function lastOf(path, kept) {
  const parts = path.split(/[\\/]/).filter(Boolean);
  return parts.length > kept ? `…/${parts.slice(-kept).join("/")}` : path;
}
