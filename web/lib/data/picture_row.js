/** A picture of a data set in the list: what of it is trained on, its caption to write, and what is to be known of it. */

import { element } from "../elements/element.js";
import { formatBytes } from "../language/amounts.js";
import { t } from "../language/words.js";
import { cutOf } from "./buckets.js";
import { legible } from "./dropped.js";

const SIDE = 192; // pixels of the small copies
const MUCH = 0.1; // of a picture that is cut away
export const FLAGS = { "no caption": "no caption", small: "small", oblong: "very oblong", duplicate: "duplicate", unreadable: "cannot be read", mask: "has a mask", long: "longer than 75 tokens", linked: "caption lies elsewhere" };

/**
 * @param {{picture: string, mask?: string}} entry
 * @param {{at: (path: string, side?: number) => string, write: (caption: string) => void, settle: (mine: string|null) => void}} actions
 *   ``at``: the address of a file; ``settle``: of two captions the one here is kept, or by null the other's
 */
export function newRow({ picture, mask: maskFile }, { at, write, settle }) {
  const text = element("textarea.rollout-caption-text", { rows: 3, spellcheck: true, placeholder: t("no caption"), onchange: () => write(text.value) });
  text.setAttribute("aria-label", t("Caption of {picture}", { picture }));
  const image = element("img", { alt: picture, loading: "lazy", onerror: () => showImage(row, !(row.parts.failed = true)) }), noImage = element("i.pi.pi-image", { role: "img", ariaLabel: picture });
  const cut = element("span.rollout-cut", { title: t("what is trained on") }), facts = element("span.rollout-note"), flagged = element("span.rollout-flags");
  const choice = (label, onclick) => element("button.rollout-button", { type: "button", onclick }, label);
  const conflict = element("div.rollout-conflict", { hidden: true }, element("span"), choice(t("Keep mine"), () => settle(text.value)), choice(t("Take theirs"), () => settle(null)));
  const mask = element("img.rollout-mask", { src: maskFile ? at(maskFile, SIDE) : "", alt: t("its mask: white is trained"), title: t("its mask: white is trained"), hidden: !maskFile });
  const row = element("article.rollout-picture", { role: "listitem" },
    element("a.rollout-picture-image", { href: at(picture), target: "_blank", rel: "noopener" }, image, noImage, mask, cut),
    element("div.rollout-picture-text", {}, facts, text, flagged, conflict));
  row.parts = { image, noImage, text, facts, cut, mask, flagged, conflict };
  return row;
}

/**
 * Brings a row up to date.
 * @param {{settings: {size: number, buckets: boolean}|null, clash?: {mine: string, theirs: string}, at: (path: string, side: number) => string}} known
 *   ``settings``: how pictures are cut; ``clash``: two captions of which one is to be chosen
 */
export function showRow(row, entry, { settings, clash, at }) {
  const { picture, width, height, caption, flags } = entry;
  const { image, text, facts, cut, mask, flagged, conflict } = row.parts;
  showImage(row, !flags.includes("unreadable") && !row.parts.failed);
  if (!image.hidden) image.src ||= at(picture, SIDE);
  text.readOnly = flags.includes("linked");
  const shown = clash?.mine ?? caption;
  if (document.activeElement !== text && text.value !== shown) text.value = shown;
  const crop = settings && cutOf([width, height], settings.size, settings.buckets);
  facts.textContent = [legible(picture), width && `${width}×${height}`, formatBytes(entry.bytes) + (crop ? ` → ${crop.size.join("×")}` : "")].filter(Boolean).join(" · ");
  facts.title = facts.textContent;
  flagged.replaceChildren(...flagsOf(entry, crop));
  mask.hidden = !entry.mask;
  cut.hidden = !crop || crop.lost < 0.005;
  if (crop) Object.assign(cut.style, outline(entry, crop.share));
  conflict.hidden = !clash;
  if (clash) conflict.firstChild.textContent = `${t("Changed elsewhere")}: ${clash.theirs || t("empty")} `;
  return row;
}

/** The picture, or a sign in its place: what cannot be read, or what this browser cannot show. */
function showImage(row, there) {
  const { image, noImage } = row.parts;
  image.hidden = !there;
  noImage.hidden = there;
}

function flagsOf({ flags, same_as: picture }, crop) {
  const told = flags.map((flag) => [t(FLAGS[flag] ?? flag), flag === "duplicate" ? t("the same as {picture}", { picture }) : ""]);
  if (crop && crop.lost > MUCH) told.push([t("loses {percent}%", { percent: Math.round(crop.lost * 100) }), ""]);
  return told.map(([word, why]) => element("span.rollout-flag", { title: why || word }, word));
}

/** Where the middle cut lies on the thumbnail, which shows the whole picture in a square. */
function outline({ width, height }, [across, down]) {
  const longer = Math.max(width, height), w = (width / longer) * across, h = (height / longer) * down;
  return { left: `${50 - w * 50}%`, top: `${50 - h * 50}%`, width: `${w * 100}%`, height: `${h * 100}%` };
}
