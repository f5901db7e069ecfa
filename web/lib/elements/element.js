/** Making elements of a page. */

/**
 * ``element("button.rollout-play", {title: "Play", onclick}, "text", child)``
 * @param {string} kind tag and classes
 * @param {Record<string, any>} [properties]
 * @param {...(Node|string|null|undefined|false)} children
 * @returns {HTMLElement}
 */
export function element(kind, properties = {}, ...children) {
  const [tag, ...classes] = kind.split(".");
  const made = document.createElement(tag);
  made.classList.add(...classes);
  for (const [name, value] of Object.entries(properties)) {
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child || child === 0));
  return made;
}

/** What is shown where there is nothing yet: what it will be, and what to do. */
export function emptyState(title, hint = "") {
  return element("div.rollout-empty", {}, element("strong", {}, title), hint && element("span", {}, hint));
}

/** A button with one of ComfyUI's own icons (PrimeIcons). */
export function iconButton(icon, label, onclick, text = "") {
  const button = element("button.rollout-button", { title: label, type: "button", onclick }, element(`i.pi.pi-${icon}`), text);
  button.setAttribute("aria-label", text && !label.startsWith(text) ? `${text}: ${label}` : label); // who speaks to it says what is written on it
  return button;
}

/** A choice; ``options`` are [value, text] pairs. */
export function select(label, options, value, onchange) {
  const made = element("select.rollout-select", { title: label, onchange: () => onchange(made.value) });
  made.setAttribute("aria-label", label);
  fillSelect(made, options, value);
  return made;
}

/** New options, only if they are new: an open list must not be rebuilt under the pointer. */
export function fillSelect(made, options, value) {
  const key = JSON.stringify(options);
  if (made.dataset.options === key) {
    if (made.value !== value) made.value = value;
    return;
  }
  made.dataset.options = key;
  made.replaceChildren(...options.map(([key, text]) => element("option", { value: key, selected: key === value }, text)));
}

/** A slider over whole numbers. */
export function slider(label, oninput) {
  const made = element("input.rollout-slider", { type: "range", min: 0, max: 0, step: 1, oninput: () => oninput(Number(made.value)) });
  made.setAttribute("aria-label", label);
  return made;
}
