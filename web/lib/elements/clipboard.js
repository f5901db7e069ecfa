/** Copies text for the person, also where the page is not served securely and the browser has no clipboard for it. */

import { t } from "../language/words.js";
import { element } from "./element.js";

export async function copyText(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const before = document.activeElement, field = element("textarea", { value: text });
  document.body.append(field);
  field.select();
  const isCopied = document.execCommand("copy");
  field.remove();
  before?.focus();
  if (!isCopied) throw new Error(t("The browser does not let this page copy: {text}", { text }));
}
