/** What of the graph is in sight: where the window looks, and that no node covers another. */

import { makeRoom } from "./room.js";

const READABLE = 0.75; // a scale
const [BESIDE, BELOW] = [34, 110]; // pixels that stay free at the left and above
const FITTED_MS = [50, 400]; // after which the frontend has fitted the whole graph into the window, and drawn it
const DRAWN_MS = 100;
const NARROW = 700; // pixels of a window, below which it is a telephone

export class Sight {
  #crowded = 0;

  /** @param {object} app the frontend's */
  constructor(app) {
    this.app = app;
  }

  /** Brings a node into view. */
  show(node) {
    this.app.canvas.centerOnNode(node);
    this.app.canvas.selectNode(node);
  }

  /** A template opens readable, on its note and what to change first; the frontend shows all of it, too small to read. */
  lookAtStart(root) {
    const asked = root?.extra?.rollout;
    if (!asked?.opens) return;
    delete asked.opens; // from now on it is the person's own
    this.lookAtCorner(root, root.extra.ds?.scale ?? 0.8);
  }

  /** Shows the upper left of the graph. */
  lookAtCorner(root, wanted = READABLE) {
    const scale = Math.max(READABLE, wanted), left = BESIDE + (document.querySelector(".graph-canvas-panel")?.getBoundingClientRect().left ?? 56);
    const [x, y] = [0, 1].map((axis) => Math.min(...root.nodes.map(({ pos }) => pos[axis])));
    const show = () => {
      const { ds } = this.app.canvas;
      ds.scale = scale;
      ds.offset[0] = left / scale - x;
      ds.offset[1] = BELOW / scale - y;
      this.app.canvas.setDirty(true, true);
    };
    const [soon, later] = FITTED_MS;
    setTimeout(show, soon);
    setTimeout(() => (show(), this.standApart()), later);
  }

  /** Where there is no room for both, the sidebar makes way. */
  clear() {
    const { sidebarTab, command } = this.app.extensionManager, beside = sidebarTab.activeSidebarTabId;
    if (beside && innerWidth < NARROW) command.execute(`Workspace.ToggleSidebarTab.${beside}`);
  }

  /** No node covers another; when the frontend has drawn them, and knows how large they are. */
  standApart() {
    this.#crowded ||= setTimeout(() => {
      this.#crowded = 0;
      const graph = this.app.rootGraph ?? this.app.graph;
      if (!graph) return; // a page that opens hears of pictures before it has one
      makeRoom(graph, heightOf);
      this.app.canvas?.setDirty(true, true);
    }, DRAWN_MS);
  }
}

/** How high a node is drawn: the newer nodes are higher than the graph says. */
function heightOf(node) {
  const { vueNodesMode, NODE_TITLE_HEIGHT } = globalThis.LiteGraph;
  const drawn = vueNodesMode ? document.querySelector(`[data-node-id="${CSS.escape(node.id)}"]`)?.offsetHeight : 0;
  return Math.max(node.size[1], (drawn ?? 0) - NODE_TITLE_HEIGHT);
}
