/** The graph on the frontend's canvas: which workflow it is, its nodes, and another one in its place. */

import { t } from "../language/words.js";
import { idsOf, nodeAt, nodesOf } from "./nodes.js";

export class Canvas {
  /** @param {object} app the frontend's */
  constructor(app) {
    this.app = app;
  }

  get root() {
    return this.app.rootGraph ?? this.app.graph;
  }

  get workflowId() {
    return this.root?.id ?? "";
  }

  get isEmpty() {
    return !this.root?.nodes.length;
  }

  /** The run whose result this graph tries; empty where it does something else. */
  get tries() {
    return this.root?.extra?.rollout?.tries ?? "";
  }

  set tries(run) {
    this.root.extra = { ...this.root.extra, rollout: { tries: run } };
  }

  /** All nodes with their ids. */
  nodes() {
    return [...nodesOf(this.root)];
  }

  nodeAt(id) {
    return nodeAt(this.root, id);
  }

  idOf(node) {
    return this.nodes().find(([, other]) => other === node)?.[0];
  }

  idsOf(classId) {
    return idsOf(this.root, classId);
  }

  titleOf(id) {
    return this.nodeAt(id)?.title ?? t("node {id}", { id });
  }

  load(workflow, name) {
    return this.app.loadGraphData(workflow, true, true, name);
  }

  /** The same with a graph as it is executed. */
  loadPrompt(prompt, name) {
    return this.app.loadApiJson(prompt, name);
  }

  queue() {
    return this.app.queuePrompt(0, 1);
  }
}

/** A new id for a workflow, also where the page is not served securely. */
export function newId() {
  const hex = [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0"));
  hex[6] = `4${hex[6][1]}`;
  hex[8] = `a${hex[8][1]}`;
  return hex.join("").replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}
