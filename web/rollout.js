/**
 * ComfyUI-Rollout's extension: rollouts and the loss on the nodes, both large in the bottom panel, pictures and runs in
 * the sidebar. This file joins the frontend with what is in lib/, whose rooms docs/architecture.md lists.
 */

import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { DATA_TAB, Photos } from "./lib/data/photos.js";
import { copyText } from "./lib/elements/clipboard.js";
import { element } from "./lib/elements/element.js";
import { onceAFrame } from "./lib/elements/once_a_frame.js";
import { Tab } from "./lib/elements/tab.js";
import { Canvas, newId } from "./lib/graph/canvas.js";
import { fold } from "./lib/graph/folded.js";
import { isOurs } from "./lib/graph/nodes.js";
import { Sight } from "./lib/graph/sight.js";
import { colourSockets } from "./lib/graph/socket_colours.js";
import { tellFaults } from "./lib/language/faults.js";
import { explainOptions, languageSetting, learnLanguage, translateBlueprints, translateNodes, translateTemplate } from "./lib/language/language.js";
import { say, t } from "./lib/language/words.js";
import { FilmReader } from "./lib/rollouts/film_reader.js";
import { RunActions } from "./lib/runs/actions.js";
import { RunsTab } from "./lib/runs/runs_tab.js";
import { Backend } from "./lib/server/backend.js";
import { sortTemplates } from "./lib/server/template_order.js";
import { Announcer } from "./lib/trainings/announcer.js";
import { Events } from "./lib/trainings/events.js";
import { Memory } from "./lib/trainings/memory.js";
import { Progress } from "./lib/trainings/progress.js";
import { Recordings } from "./lib/trainings/recordings.js";
import { BottomPanel } from "./lib/views/bottom_panel.js";
import { NodeViews } from "./lib/views/node_views.js";

// What is known
const canvas = new Canvas(app), sight = new Sight(app), backend = new Backend(api), recordings = new Recordings();
const memory = new Memory({ canvas, recordings, backend, storage: sessionStorage });
const world = { canvas, sight, backend, recordings, memory, reader: new FilmReader(backend), announcer: new Announcer(document) };

// What is said, and what goes wrong
const tell = (severity, detail, summary = t("Runs")) => app.extensionManager?.toast?.add({ severity, summary, detail: say(detail), life: 8000 });
const attempt = (action) => async (...what) => {
  try {
    await action(...what);
  } catch (error) {
    tell("error", String(error.message ?? error));
  }
};

// What is shown: on the nodes, in the bottom panel, over the canvas, in the sidebar
const refresh = onceAFrame(() => {
  nodeViews.show();
  panel.show(recordings.training?.recording.running);
  progress.show();
});
const panel = new BottomPanel(app, world, refresh);
const nodeViews = new NodeViews(world, panel, refresh);
const photos = new Photos(app, world, (severity, detail) => tell(severity, detail, t("Pictures")));

// What is done with runs
const actions = new RunActions({ ...world, loaded: (run) => panel.samples.shown && panel.openSamples(run), tell });
const load = (run) => actions.load(run), resume = (run) => actions.resume(run), tryIt = (run, path) => actions.tryIt(run, path);
const stop = () => api.interrupt(recordings.training?.job ?? null);
const samples = (run) => panel.openSamples(run), compare = (run) => panel.compare(run), seen = (run) => recordings.progressOf(run);
const progress = new Progress(world, { attempt, load, stop: attempt(stop), resume: attempt(resume), tryIt: attempt(tryIt), copy: attempt(copyText), samples });
const confirm = (question) => app.extensionManager.dialog.confirm(question);
const runs = new Tab(() => new RunsTab(backend, { load, resume, stop, samples, tryIt, compare, seen, confirm, tell }));

// What is heard
const events = new Events(api, world, {
  draws: (id) => nodeViews.draws(id), grown: () => sight.standApart(),
  queueChanged: () => runs.shown?.refresh(), trains: () => runs.shown?.expect(),
  resumed: (text) => tell("info", text), ended: (kind, why) => progress.end(kind, why), tried: () => panel.openTried(),
});
tellFaults(api);
sortTemplates(api, "quickstart_digits");
recordings.addEventListener("change", refresh);
events.listen(); // now: a server may tell what is going on before setup is called

const locale = await learnLanguage(api, navigator.languages).catch(() => ({}));
translateBlueprints(api, locale.rolloutTemplates);

app.registerExtension({
  name: "ComfyUI-Rollout",
  settings: [languageSetting()],
  addCustomNodeDefs: (definitions) => translateNodes(definitions, locale),
  bottomPanelTabs: panel.tabs,
  setup() {
    progress.addBar(() => document.querySelector(".graph-canvas-panel") ?? document.body);
    document.head.append(element("link", { rel: "stylesheet", href: new URL("./rollout.css", import.meta.url).href }));
    photos.listen(document);
    app.extensionManager.registerSidebarTab({
      id: DATA_TAB, icon: "pi pi-images", title: t("Data"), tooltip: t("Pictures to train on"), type: "custom", render: (place) => photos.render(place),
    });
    app.extensionManager.registerSidebarTab({
      id: "rollout-runs", icon: "pi pi-history", title: t("Runs"), tooltip: t("Training runs"), type: "custom",
      render: (place) => (runs.render(place), runs.part.refresh(true)),
    });
  },
  nodeCreated(node) {
    explainOptions(node.widgets, locale.nodeDefs?.[node.comfyClass]);
    photos.addChoice(node);
    nodeViews.add(node);
    if (isOurs(node.comfyClass)) fold(node, globalThis.LiteGraph);
  },
  beforeConfigureGraph(graph) {
    if (!graph.extra?.rollout?.opens) return;
    graph.id = newId(); // ComfyUI gives every copy of a template the same one, and what earlier copies did would be shown
    translateTemplate(graph, locale.rolloutTemplates);
  },
  async afterConfigureGraph() {
    colourSockets(app.canvas);
    for (const [, node] of canvas.nodes()) if (isOurs(node.comfyClass)) fold(node, globalThis.LiteGraph);
    sight.lookAtStart(canvas.root);
    refresh();
    setTimeout(() => actions.watch()); // later: the page is not done with its own graph yet
    await memory.restore();
  },
});
