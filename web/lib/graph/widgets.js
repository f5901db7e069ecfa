/** What we add to a node of the frontend, and how we hear of it. */

/** The widget of that name; undefined where there is none. */
export const widgetOf = (node, wanted) => node?.widgets?.find(({ name }) => name === wanted);

/** Puts a part of the page on a node; nothing of it gets into the workflow file. ``heights`` are functions. */
export function addPanel(node, name, element, heights) {
  node.addDOMWidget(name, name, element, { serialize: false, hideOnZoom: false, ...heights }).serialize = false;
}

export function whenRemoved(node, action) {
  const removed = node.onRemoved;
  node.onRemoved = function (...args) {
    action();
    return removed?.apply(this, args);
  };
}

export function whenChanged(widget, action) {
  const callback = widget.callback;
  widget.callback = function (...args) {
    action();
    return callback?.apply(this, args);
  };
}
