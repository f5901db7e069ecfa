/** What is wrong, said in the person's language before the frontend shows it: with a prompt, and while it runs. */

import { say } from "./words.js";

/**
 * Lets the frontend's api give its errors in the person's language: of ``queuePrompt`` those of single nodes and of the
 * whole prompt, and of a job that runs the one that ends it.
 */
export function tellFaults(api) {
  const queuePrompt = api.queuePrompt;
  api.queuePrompt = async function (...what) {
    try {
      return translated(await queuePrompt.apply(this, what));
    } catch (error) {
      translated(error?.response);
      throw error;
    }
  };
  api.addEventListener("execution_error", ({ detail }) => (detail.exception_message = say(detail.exception_message ?? "")), { capture: true });
}

/** Changes a reply of the server in place: ``{error: {details}, node_errors: {id: {errors: [{details}]}}}``. */
export function translated(reply) {
  const ofNodes = Object.values(reply?.node_errors ?? {}).flatMap(({ errors }) => errors ?? []);
  for (const fault of [reply?.error, ...ofNodes]) if (typeof fault?.details === "string") fault.details = say(fault.details);
  return reply;
}

const MESSAGE = '[data-testid="error-overlay-messages"] p'; // the frontend's own, which says of a failed node only that it failed
const PATIENCE_MS = 3000;

/** Writes why a node failed into the frontend's message, as soon as that is there. The node says it in any case. */
export function giveReason(page, reason) {
  const write = () => {
    const line = page.querySelector(MESSAGE);
    if (line && line.textContent !== reason) Object.assign(line, { textContent: reason, title: reason });
  };
  const watcher = new MutationObserver(write);
  watcher.observe(page.body, { childList: true, subtree: true, characterData: true });
  setTimeout(() => watcher.disconnect(), PATIENCE_MS);
  write();
}
