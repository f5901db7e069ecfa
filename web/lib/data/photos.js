/** Where pictures and the canvas meet: a drop becomes a data set, and a data set the folder of a node. */

import { element, fillSelect, iconButton, select } from "../elements/element.js";
import { Tab } from "../elements/tab.js";
import { addPanel, whenChanged, whenRemoved, widgetOf } from "../graph/widgets.js";
import { lastOf } from "../language/paths.js";
import { t } from "../language/words.js";
import { DataTab } from "./data_tab.js";
import { filesOf, isForTraining, isPicture } from "./dropped.js";

const FOLDER_NODE = "RolloutImageFolderDataset";
const SHOWN = 2; // folders of a path
const ROW = 32; // pixels
export const DATA_TAB = "rollout-data";

export class Photos {
  /**
   * @param {object} app the frontend's
   * @param {{canvas: import("../graph/canvas.js").Canvas, backend: import("../server/backend.js").Backend}} world
   * @param {(severity: string, text: string) => void} tell
   */
  constructor(app, { canvas, backend }, tell) {
    Object.assign(this, { app, canvas, backend, tell });
    this.choices = new Set(); // each lists the data sets on one node
    this.tab = new Tab(() => new DataTab(backend, { tell, use: (path) => this.use(path), settings: (path) => this.#settings(path) }));
  }

  get #nodes() {
    return this.canvas.nodes().map(([, node]) => node).filter(({ comfyClass }) => comfyClass === FOLDER_NODE);
  }

  /** Writes a folder into a node: the given one, or the selected one, or one that has none yet, or the first. */
  use(path, node) {
    const nodes = this.#nodes, selected = nodes.find((one) => one.selected || one.is_selected);
    const target = node ?? selected ?? nodes.find((one) => !widgetOf(one, "folder").value) ?? nodes[0];
    if (!target) return this.tell("warn", t("Put an Image Folder Dataset on the canvas, or open a LoRA template; then press Use."));
    const folder = widgetOf(target, "folder");
    folder.value = path;
    folder.callback?.(path);
    for (const list of this.choices) list();
    this.app.canvas?.setDirty(true, true);
    this.tell("success", t("{title}: {name} will be trained on", { title: target.title, name: path.split(/[\\/]/).filter(Boolean).at(-1) ?? path }));
  }

  #settings(path) {
    const nodes = this.#nodes, node = nodes.find((one) => widgetOf(one, "folder").value === path) ?? nodes[0];
    return node ? { size: widgetOf(node, "size").value, buckets: widgetOf(node, "buckets")?.value ?? false } : null;
  }

  /** Takes drops of several pictures, a folder or a ZIP from the frontend, which knows nothing to do with them. */
  listen(page) {
    page.addEventListener("drop", (event) => this.#dropped(event), { capture: true });
  }

  async #dropped(event) {
    const carried = event.dataTransfer;
    if (event.target.closest?.(".rollout-data") || !carried?.types?.includes("Files")) return;
    const node = this.#nodeUnder(event);
    const isMeant = node && [...carried.files].some(({ name }) => isPicture(name));
    if (!isMeant && !isForTraining(carried)) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    const files = await filesOf(carried);
    this.openTab();
    const told = await this.tab.part.bringIn(files);
    if (told) this.use(told.path, node);
  }

  #nodeUnder(event) {
    if (event.target !== this.app.canvas?.canvas) return undefined;
    const [x, y] = this.app.canvas.convertEventToCanvasOffset(event);
    const node = this.app.canvas.graph?.getNodeOnPos(x, y);
    return node?.comfyClass === FOLDER_NODE ? node : undefined;
  }

  openTab() {
    const { sidebarTab, command } = this.app.extensionManager;
    if (sidebarTab.activeSidebarTabId !== DATA_TAB) command.execute(`Workspace.ToggleSidebarTab.${DATA_TAB}`);
  }

  /** Opens the tab at the data set in this folder, where it is known. */
  async see(path) {
    this.openTab();
    const sets = await this.backend.datasets().catch(() => null);
    const found = sets?.find((set) => set.path === path);
    if (found) return this.tab.part.open(found.name);
    if (path && sets) this.tell("info", t("Save or run the workflow to see the pictures in {path} here", { path }));
  }

  render(place) {
    this.tab.render(place);
    this.tab.part.open();
  }

  /** On Image Folder Dataset: the data sets there are, and a way to bring in and see pictures. */
  addChoice(node) {
    if (node.comfyClass !== FOLDER_NODE) return;
    const folder = widgetOf(node, "folder");
    showShort(folder);
    const choice = select(t("Take a data set of the studio"), [["", t("data sets …")]], "", (path) => path && this.use(path, node));
    const list = async () => {
      const sets = await this.backend.datasets().catch(() => null);
      fillSelect(choice, [["", sets?.length ? t("data sets …") : t("no data sets yet")], ...(sets ?? []).map(({ name, title, path }) => [path, title ?? name])], folder.value ?? "");
    };
    choice.addEventListener("pointerdown", list);
    choice.addEventListener("focus", list);
    const see = iconButton("images", t("Bring pictures in, see them and write captions"), () => this.see(folder.value), t("Pictures"));
    const row = element("div.rollout-card.rollout-line.rollout-choice", {}, choice, see);
    addPanel(node, "rollout_pictures", row, { getMinHeight: () => ROW, getMaxHeight: () => ROW });
    for (const cut of ["size", "buckets"].map((name) => widgetOf(node, name)).filter(Boolean)) whenChanged(cut, () => this.tab.shown?.cutAnew());
    this.choices.add(list);
    whenRemoved(node, () => this.choices.delete(list));
    list();
  }
}

/** The canvas draws the end of a path: its last folders are what a person knows it by. */
function showShort(widget) {
  Object.defineProperty(widget, "_displayValue", { get: () => lastOf(widget.value ?? "", SHOWN) });
}
