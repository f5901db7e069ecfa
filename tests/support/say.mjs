/** Says each line of stdin (a JSON list) by the templates of the file that is named, and tells which were used. */
import { readFileSync } from "node:fs";
import { Phrasebook } from "../../web/lib/language/phrasebook.js";

const book = new Phrasebook(JSON.parse(readFileSync(process.argv[2], "utf8")));
const lines = JSON.parse(readFileSync(0, "utf8"));
process.stdout.write(JSON.stringify(lines.map((line) => book.find(line))));
