/**
 * ComfyUI-Rollout's extension: rollouts and the loss on the nodes, both large in the bottom panel, and a list of runs
 * in the sidebar. This file joins the frontend with what is in lib/, which knows nothing of it.
 */

import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { Announcer } from "./lib/announcer.js";
import { Backend } from "./lib/backend.js";
import { CurvesPanel } from "./lib/curves_panel.js";
import { formatDuration } from "./lib/duration.js";
import { element, fillSelect, iconButton, select } from "./lib/element.js";
import { FilmReader } from "./lib/film_reader.js";
import { framesAmong, runOf } from "./lib/film.js";
import { buttonsOf, newId, savedIn, viewOf } from "./lib/ended.js";
import { giveReason, tellFaults } from "./lib/faults.js";
import { fold } from "./lib/folded.js";
import { Found, linesOf } from "./lib/found.js";
import { Gate } from "./lib/gate.js";
import { Gallery, TRIED } from "./lib/gallery.js";
import { idsOf, nodeAt, nodesOf } from "./lib/graph.js";
import { Inspector } from "./lib/inspector.js";
import { LANGUAGES, SETTING, explainOptions, languageOf, translateBlueprints, translateNodes, translateTemplate } from "./lib/language.js";
import { LossCard } from "./lib/loss_card.js";
import { Recording, Recordings } from "./lib/recordings.js";
import { recall, remember } from "./lib/remembered.js";
import { DATA_TAB, Photos } from "./lib/photos.js";
import { makeRoom } from "./lib/room.js";
import { RunsTab, STATUS } from "./lib/runs_tab.js";
import { colourSockets } from "./lib/socket_colours.js";
import { sortTemplates } from "./lib/template_order.js";
import { TrainingBar } from "./lib/training_bar.js";
import { arrange, tryIt } from "./lib/try_it.js";
import { say, speak, t } from "./lib/words.js";

const ROLLOUT = "Rollout";
const TRAINER = "RolloutOptimizerStep";
const OURS = /^Rollout/;
const ROLLOUTS_TAB = "rollout-inspector";
const CURVES_TAB = "rollout-curves";
const SAMPLES_TAB = "rollout-samples";
const NARROW = 700; // pixels of a window, below which it is a telephone

const backend = new Backend(api);
const reader = new FilmReader(backend);
const recordings = new Recordings();
const views = new Map(); // by node, those on the canvas
const founds = new Map(); // by node, the words on it
const large = { rollouts: null, curves: null, samples: null, runs: null };
const runs = new Map(); // by trainer, of what it has just shown
const gate = new Gate(api, {
  lookUp: (jobId) => backend.job(jobId),
  onCanvas: () => workflowId(),
  settled: (jobId, home) => recordings.settle(jobId, home),
  draws: (id) => views.get(nodeAt(root(), id)) instanceof Inspector,
  hears: ({ prompt_id: job, node, output }) => {
    recordings.addWords(job, node, linesOf(output));
    const isTrainer = output?.images?.some(({ filename }) => filename === "loss.png");
    if (!isTrainer) return;
    runs.set(node, runOf(output.images[0].subfolder));
    output.images = []; // the curve is drawn on the node, and better; the samples are on the node that makes them
  },
});
const chosen = { [ROLLOUT]: "", [TRAINER]: "", run: "" }; // which node the panel shows

const announcer = new Announcer(document);
const bar = { view: null }; // the line over the canvas

const root = () => app.rootGraph ?? app.graph;
const workflowId = () => root()?.id ?? "";
const recordingOf = (id) => recordings.of(workflowId(), id);
const titleOf = (id) => nodeAt(root(), id)?.title ?? t("node {id}", { id });

/** Opens a tab of the bottom panel, for a certain node. */
function openPanel(tab, classId, node) {
  const found = [...nodesOf(root())].find(([, other]) => other === node);
  if (found) chosen[classId] = found[0];
  showTab(tab);
  refresh();
}

/** Brings a tab of the bottom panel into sight; where there is no room for both, the sidebar makes way. */
function showTab(tab) {
  const { bottomPanel, sidebarTab, command } = app.extensionManager;
  if (bottomPanel.activeBottomPanelTabId !== tab || !bottomPanel.bottomPanelVisible) bottomPanel.toggleBottomPanelTab(tab);
  const beside = sidebarTab.activeSidebarTabId;
  if (beside && innerWidth < NARROW) command.execute(`Workspace.ToggleSidebarTab.${beside}`);
}

function addView(node, name, view, height) {
  const widget = node.addDOMWidget(name, name, view.element, { serialize: false, hideOnZoom: false, getMinHeight: () => height });
  widget.serialize = false; // nothing of it belongs into the workflow file
  views.set(node, view);
  const removed = node.onRemoved;
  node.onRemoved = function (...args) {
    view.stop?.();
    views.delete(node);
    return removed?.apply(this, args);
  };
}

/** Writes what a node found on the node; the place for it is made when there is something to say. */
function showFound(node, lines) {
  if (!lines.length && !founds.has(node)) return;
  if (!founds.has(node)) {
    const found = new Found();
    const options = { serialize: false, hideOnZoom: false, getMinHeight: () => found.height, getMaxHeight: () => found.height };
    node.addDOMWidget("rollout_found", "rollout_found", found.element, options).serialize = false;
    founds.set(node, found);
    const removed = node.onRemoved;
    node.onRemoved = function (...args) {
      founds.delete(node);
      return removed?.apply(this, args);
    };
  }
  if (!founds.get(node).show(lines)) return;
  const needed = node.computeSize();
  if (node.size[1] < needed[1]) node.setSize([node.size[0], needed[1]]);
  standApart();
}

/** How high a node is drawn: the newer nodes are higher than the graph says. */
function heightOf(node) {
  const drawn = globalThis.LiteGraph?.vueNodesMode ? document.querySelector(`[data-node-id="${CSS.escape(node.id)}"]`)?.offsetHeight : 0;
  return Math.max(node.size[1], (drawn ?? 0) - globalThis.LiteGraph.NODE_TITLE_HEIGHT);
}

let crowded = 0;
/** No node covers another; when the frontend has drawn them, and knows how large they are. */
function standApart() {
  crowded ||= setTimeout(() => {
    crowded = 0;
    makeRoom(root(), heightOf);
    app.canvas?.setDirty(true, true);
  }, 100);
}

function addInspector(node) {
  addView(node, "rollout_inspector", new Inspector(reader, { open: () => openPanel(ROLLOUTS_TAB, ROLLOUT, node) }), 210);
  const offset = node.widgets.find(({ name }) => name === "max_step_offset");
  if (!offset) return;
  const callback = offset.callback;
  offset.callback = function (...args) {
    refresh();
    return callback?.apply(this, args);
  };
}

/** Why there are no rollouts to see, in the words of who looks at the node. */
function hintFor(node, recording) {
  if (node?.widgets?.find(({ name }) => name === "max_step_offset")?.value === 0) {
    return [t("Rollouts are off"), t("max_step_offset is 0: set it to 5 to see the model denoise.")];
  }
  if (recording?.running) return [t("Waiting for the first look"), t("Optimizer Step looks every preview_every steps.")];
  return [t("Run the workflow to see rollouts here"), t("The same few items, at every look during the training.")];
}

function showRollouts(inspector, id) {
  const recording = recordingOf(id);
  if (!recording?.films.length) inspector.setHint(...hintFor(nodeAt(root(), id), recording));
  inspector.show(recording?.films ?? []);
}

let waiting = 0;
/** Shows what is known now; at most once a frame, however many events come. */
function refresh() {
  waiting ||= requestAnimationFrame(() => {
    waiting = 0;
    for (const [id, node] of nodesOf(root())) {
      const view = views.get(node);
      if (view instanceof Inspector) showRollouts(view, id);
      else view?.show(recordingOf(id));
      if (OURS.test(node.comfyClass)) showFound(node, recordings.wordsOf(workflowId(), id));
    }
    if (large.rollouts?.element.isConnected) showRollouts(large.rollouts.view, pick(large.rollouts.choice, ROLLOUT));
    if (large.samples?.element.isConnected && recordings.training?.recording.running) large.samples.view.expect();
    if (large.curves?.element.isConnected) large.curves.view.show(recordingOf(pick(large.curves.choice, TRAINER)));
    const training = recordings.training;
    if (training?.recording.running) bar.view?.showTraining(titleOfTraining(training), training.recording);
  });
}

const isElsewhere = ({ home }) => home !== workflowId();
const titleOfTraining = (training) => (isElsewhere(training) ? t("Training in another workflow") : titleOf(training.node));

/** Brings the node that trains into view, or the workflow that it is in. */
async function showTraining() {
  const training = recordings.training;
  if (!training) return;
  if (isElsewhere(training) && training.recording.run) await load(training.recording.run);
  const node = nodeAt(root(), training.node);
  if (!node) return;
  app.canvas.centerOnNode(node);
  app.canvas.selectNode(node);
}

/** Says how a training ended; what went wrong on the canvas, the frontend itself tells. */
async function showEnd(kind, message = "") {
  const training = recordings.training;
  if (!training) return bar.view?.hide();
  const { run, metrics } = training.recording, steps = (metrics.lastStep + 1).toLocaleString("en-US");
  const facts = run ? await backend.run(run).catch(() => null) : null;
  if (recordings.training?.recording.running) return; // the next one has begun
  if (kind === "failed") announcer.tell(kind, t("Failed"), message);
  if (kind === "failed") return isElsewhere(training) ? bar.view?.showEnd(kind, t("Failed"), message) : bar.view?.hide();
  if (kind === "stopped") {
    const title = facts?.can_resume ? t("Stopped, saved") : t("Stopped");
    const resumes = facts?.can_resume && iconButton("play", t("Go on with the run where it was"), () => attempt(() => resume(facts)), t("Resume"));
    announcer.tell(kind, title, t("after step {step}", { step: steps }));
    return bar.view?.showEnd(kind, title, t("after step {step}", { step: steps }), resumes);
  }
  const saved = isElsewhere(training) ? null : savedIn(root(), (id) => recordings.wordsOf(workflowId(), id));
  const view = saved && viewOf(saved.paths[0]);
  const told = [t("{steps} steps", { steps }), facts?.seconds && formatDuration(facts.seconds), saved?.paths.map((path) => path.split(/[\\/]/).at(-1)).join(", ")];
  const buttons = buttonsOf({ saved, run, view: view && facts && backend.view(view), actions: {
    copy: (path) => attempt(() => navigator.clipboard.writeText(path)), tryIt: (...what) => attempt(() => tryRun(...what)), samples: openSamples,
  } });
  bar.view?.showEnd(kind, t(saved?.title ?? "Trained"), told.filter(Boolean).join(" · "), ...buttons);
  announcer.tell(kind, t(saved?.title ?? "Trained"), told.filter(Boolean).join(" · "));
}

async function attempt(action) {
  try {
    await action();
  } catch (error) {
    tell("error", String(error.message ?? error));
  }
}

const stop = () => api.interrupt(recordings.training?.job ?? null);

/** The node that the panel shows; where there are several, the user chooses. */
function pick(choice, classId) {
  const ids = idsOf(root(), classId);
  if (!ids.includes(chosen[classId])) chosen[classId] = ids.find((id) => recordingOf(id)) ?? ids[0] ?? "";
  fillSelect(choice, ids.map((id) => [id, `${titleOf(id)} (${id})`]), chosen[classId]);
  choice.hidden = ids.length < 2;
  return chosen[classId];
}

function panel(classId, view) {
  const choice = select(t("Which node"), [], "", (id) => ((chosen[classId] = id), refresh()));
  return { view, choice, element: element("div.rollout-slot", {}, choice, view.element) };
}

function renderInto(place, part) {
  place.classList.add("rollout-place");
  if (part.element.parentElement !== place) place.replaceChildren(part.element);
  refresh();
}

function renderRollouts(place) {
  large.rollouts ??= panel(ROLLOUT, new Inspector(reader, { large: true }));
  renderInto(place, large.rollouts);
}

const curvesPanel = () => (large.curves ??= panel(TRAINER, new CurvesPanel(backend, titleOf)));

const renderCurves = (place) => renderInto(place, curvesPanel());

/** Draws a run's curves beside those of the run on the canvas, and of others that are drawn already. */
function compare(run) {
  showTab(CURVES_TAB);
  return curvesPanel().view.comparison.add(run);
}

function renderSamples(place) {
  if (!large.samples) {
    const gallery = new Gallery(backend, workflowId);
    large.samples = { view: gallery, element: element("div.rollout-slot", {}, gallery.element) };
  }
  renderInto(place, large.samples);
  large.samples.view.open(chosen.run || runOfCanvas() || (isTry() ? TRIED : ""));
  chosen.run = "";
}

/** Whether the canvas shows a graph that tries what was learnt. */
const isTry = () => Boolean(root()?.extra?.rollout?.tries);

/** The run that the trainer on the canvas made last. */
const runOfCanvas = () => idsOf(root(), TRAINER).map((id) => recordingOf(id)?.run).find(Boolean) ?? "";

/** Opens the samples of a run. */
function openSamples(run = "") {
  chosen.run = run;
  if (large.samples?.element.isConnected) large.samples.view.open(run);
  showTab(SAMPLES_TAB);
}

const tell = (severity, detail, summary = t("Runs")) => app.extensionManager?.toast?.add({ severity, summary, detail: say(detail), life: 8000 });

/** Puts a run's workflow on the canvas with all that is kept of the run: curves, rollouts, samples. */
async function load(run) {
  const [workflow, facts] = await Promise.all([backend.workflow(run), backend.run(run).catch(() => null)]);
  const isOver = facts && facts.status !== "running";
  const id = isOver ? newId() : workflow.id; // one that goes on is heard of under its own id
  await app.loadGraphData({ ...workflow, id }, true, true, run);
  if (!isOver) return;
  for (const [node, { comfyClass }] of nodesOf(root())) {
    if (![ROLLOUT, TRAINER].includes(comfyClass)) continue;
    const found = Object.assign(new Recording(), { run, total: facts.steps ?? 0, message: STATUS[facts.status] ?? "" });
    if (comfyClass === TRAINER) found.metrics.add(await backend.rows(run));
    else found.films = (await filmsOf(run, node)) ?? [];
    recordings.restore(workflowId(), node, found);
    keep(node);
  }
  if (large.samples?.element.isConnected) openSamples(run);
}

/** A graph that draws without and with what a run learnt. */
async function tryRun(run, path = "") {
  const prompt = await backend.viewJson({ filename: "prompt.json", subfolder: `rollout/${run}` });
  const graph = tryIt(prompt, path || `rollout/${run}`, run);
  if (!graph) throw new Error(t("This run has no Sample Prompts or Sample Images to try it with"));
  await app.loadApiJson(graph, t("Try {run}", { run }));
  arrange(root(), (name) => globalThis.LiteGraph.createNode(name));
  root().extra = { ...root().extra, rollout: { tries: run } };
  lookAtCorner(0.75);
  const both = Object.keys(graph).length > 2; // of a model that was trained whole there is no "without"
  tell("info", both ? t("Press Run: the same prompts from the same noise, without and with what was learnt.") : t("Press Run: images of what was learnt."), t("Try it"));
}

/** Puts a run's workflow on the canvas, set to go on with it, and queues it if there are steps left. */
async function resume({ name: run, node, steps, steps_done: done = 0 }) {
  await load(run);
  const trainer = nodeAt(root(), node ?? idsOf(root(), TRAINER)[0]);
  const widget = trainer?.widgets?.find(({ name }) => name === "resume");
  if (!widget) throw new Error(t("The workflow of {run} has no Optimizer Step that could go on", { run }));
  widget.value = run;
  if (done < steps) await app.queuePrompt(0, 1);
  else tell("info", t("{run} has done all its {steps} steps: set steps of {title} to more, then press Run.", { run, steps, title: trainer.title }));
}

function renderRuns(place) {
  large.runs ??= new RunsTab(backend, {
    load,
    resume,
    stop,
    samples: openSamples,
    compare,
    tryIt: tryRun,
    confirm: (run) => app.extensionManager.dialog.confirm({
      title: t("Delete this run?"), message: t("Its folder is removed with everything in it: the trained model, samples, rollouts and curves."),
      itemList: [run], type: "delete",
    }),
    seen: (run) => {
      const found = recordings.training?.recording;
      return found?.run === run ? { done: found.metrics.lastStep + 1, left: found.metrics.remaining(found.total) } : { done: 0, left: null };
    },
    tell,
  });
  place.classList.add("rollout-place");
  if (large.runs.element.parentElement !== place) place.replaceChildren(large.runs.element);
  large.runs.refresh(true);
}

/** Brings back what a reload forgot: from the run that this page saw last, or that is running now. */
async function restore() {
  const id = workflowId();
  recordings.adopt(id);
  await restoreWords(id);
  const known = recall(sessionStorage, id);
  const running = Object.keys(known).length ? "" : await runningRun(id);
  for (const [node, { comfyClass }] of nodesOf(root())) {
    if (![ROLLOUT, TRAINER].includes(comfyClass) || recordingOf(node)?.metrics.steps.length) continue;
    const found = Object.assign(new Recording(), known[node] ?? { run: running });
    if (!found.run) continue;
    try {
      if (comfyClass === TRAINER) found.metrics.add(await backend.rows(found.run));
      else found.films = (await filmsOf(found.run, node)) ?? found.films; // what this page remembers may be thinned out
    } catch {
      continue; // the run is gone, and there is nothing to show
    }
    recordings.restore(id, node, found);
  }
}

/** Brings back what the nodes said in the newest job of this workflow. */
async function restoreWords(id) {
  for (const [node, output] of Object.entries((await backend.newestJob(id).catch(() => null))?.outputs ?? {})) recordings.restoreWords(id, node, linesOf(output));
}

/** The films of a node that its run keeps; null where the server cannot list them. */
async function filmsOf(run, node) {
  const files = await backend.files(run);
  return files && framesAmong(files, node);
}

/** What a run recorded before this page heard of it, or before it was resumed, comes before what is heard now. */
async function joinEarlierFilms(node) {
  const { run } = recordingOf(node);
  const films = await filmsOf(run, node).catch(() => null);
  if (films) recordings.restore(workflowId(), node, Object.assign(new Recording(), { run, films }));
}

/** The run that was started from this workflow and is still going on. */
async function runningRun(id) {
  const run = (await backend.runs().catch(() => null))?.find(({ status }) => status === "running")?.name;
  if (!run) return "";
  const workflow = await backend.workflow(run).catch(() => null);
  return workflow?.id === id ? run : "";
}

function keep(node) {
  const recording = recordingOf(node);
  if (recording?.run) remember(sessionStorage, workflowId(), node, recording);
}

function end(kind, message) {
  recordings.end(kind === "finished" ? "" : kind);
  showEnd(kind, message);
}

/** A template opens readable, on its note and what to change first; the frontend shows all of it, too small to read. */
function lookAtStart() {
  const graph = root(), asked = graph?.extra?.rollout;
  if (!asked?.opens) return;
  delete asked.opens; // from now on it is the person's own
  lookAtCorner(Math.max(0.75, graph.extra.ds?.scale ?? 0.8));
}

/** Shows the upper left of the graph, after the frontend has fitted all of it into the window. */
function lookAtCorner(scale) {
  const graph = root(), [left, top] = [34 + (document.querySelector(".graph-canvas-panel")?.getBoundingClientRect().left ?? 56), 110];
  const x = Math.min(...graph.nodes.map(({ pos }) => pos[0])), y = Math.min(...graph.nodes.map(({ pos }) => pos[1]));
  const show = () => {
    const { ds } = app.canvas;
    ds.scale = scale;
    ds.offset[0] = left / scale - x;
    ds.offset[1] = top / scale - y;
    app.canvas.setDirty(true, true);
  };
  setTimeout(show, 50);
  setTimeout(() => (show(), standApart()), 400);
}

/** A page that is opened while something runs shows what runs: a training that was started elsewhere is watched. */
let hasLooked = false;
async function watchWhatRuns() {
  hasLooked = true;
  if (root()?.nodes.length) return;
  const workflow = await backend.runningWorkflow().catch(() => null);
  if (!workflow || root()?.nodes.length) return;
  await app.loadGraphData(workflow, true, true, t("running"));
  document.activeElement?.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape", bubbles: true })); // the templates
}

const photos = new Photos(app, backend, (severity, detail) => tell(severity, detail, t("Pictures")));

function listen() {
  recordings.addEventListener("change", refresh);
  api.addEventListener("execution_error", ({ detail }) => (detail.exception_message = say(detail.exception_message ?? "")), { capture: true });
  gate.listen();
  api.addEventListener("execution_start", ({ detail }) => recordings.begin(detail.prompt_id, ""));
  api.addEventListener("execution_cached", ({ detail }) => detail.isCounted || recordings.takeAsTheyWere(detail.prompt_id, detail.taken ?? detail.nodes ?? []));
  api.addEventListener("rollout.metrics", ({ detail }) => {
    recordings.addRows(detail.node, detail.rows, performance.now() / 1000);
    large.runs?.expect();
  });
  api.addEventListener("rollout.frames", async ({ detail }) => {
    recordings.addFrames(detail.node, detail);
    if (detail.step > 0 && recordingOf(detail.node)?.films.length === 1) await joinEarlierFilms(detail.node);
    keep(detail.node);
    idsOf(root(), TRAINER).forEach(keep);
  });
  api.addEventListener("rollout.resumed", ({ detail }) => tell("info", detail.text));
  api.addEventListener("progress_state", ({ detail }) => {
    for (const [node, { max }] of Object.entries(detail.nodes)) recordings.setTotal(node, max);
  });
  api.addEventListener("executed", ({ detail }) => {
    const run = runs.get(detail.node) ?? runOf(detail.output?.images?.[0]?.subfolder);
    runs.delete(detail.node);
    if (!run) return;
    recordings.setRun(detail.node, run);
    keep(detail.node);
  });
  api.addEventListener("executed", standApart); // a picture makes a node higher
  api.addEventListener("execution_success", async ({ detail }) => {
    end("finished");
    if (isTry() && (await gate.isOfCanvas(detail.prompt_id))) openSamples(TRIED);
  });
  api.addEventListener("execution_interrupted", () => end("stopped"));
  api.addEventListener("execution_error", ({ detail }) => {
    const why = detail.exception_message.trim();
    if (why && OURS.test(detail.node_type)) {
      recordings.addWords(detail.prompt_id, detail.node_id, [`✗ ${why}`]);
      gate.isOfCanvas(detail.prompt_id).then((isHere) => isHere && giveReason(document, why));
    }
    end("failed", why);
  });
  api.addEventListener("status", () => large.runs?.element.isConnected && large.runs.refresh());
}

/** Learns the person's language; nothing of ours is on the page before. */
async function learnLanguage() {
  const chosen = await api.getSetting(SETTING).catch(() => null);
  const language = languageOf(chosen, navigator.languages);
  if (language === "en") return {};
  const files = [`${language}.json`, `said.${language}.json`].map((name) => fetch(new URL(`./words/${name}`, import.meta.url)));
  speak(...(await Promise.all(files.map(async (file) => ((await file).ok ? (await file).json() : {})))));
  const reply = await api.fetchApi("/i18n");
  return reply.ok ? ((await reply.json())[language] ?? {}) : {};
}

tellFaults(api);
sortTemplates(api, "quickstart_digits");
listen(); // now: a server may tell what is going on before setup is called

const locale = await learnLanguage().catch(() => ({}));
translateBlueprints(api, locale.rolloutTemplates);

app.registerExtension({
  name: "ComfyUI-Rollout",
  settings: [{
    id: SETTING, name: t("Language of Rollout's panels and nodes (after a reload)"), type: "combo", defaultValue: "auto",
    options: [{ text: t("as the browser"), value: "auto" }, ...Object.entries(LANGUAGES).map(([value, text]) => ({ text, value }))],
  }],
  addCustomNodeDefs: (definitions) => translateNodes(definitions, locale),
  bottomPanelTabs: [
    { id: ROLLOUTS_TAB, title: t("Rollouts"), type: "custom", render: renderRollouts, destroy: () => large.rollouts?.view.stop() },
    { id: CURVES_TAB, title: t("Training curves"), type: "custom", render: renderCurves },
    { id: SAMPLES_TAB, title: t("Samples"), type: "custom", render: renderSamples },
  ],
  setup() {
    bar.view = new TrainingBar({ stop: () => attempt(stop), show: () => attempt(showTraining), announcer });
    (document.querySelector(".graph-canvas-panel") ?? document.body).append(bar.view.element);
    document.head.append(element("link", { rel: "stylesheet", href: new URL("./rollout.css", import.meta.url).href }));
    photos.listen(document);
    app.extensionManager.registerSidebarTab({
      id: DATA_TAB, icon: "pi pi-images", title: t("Data"), tooltip: t("Pictures to train on"), type: "custom", render: (place) => photos.render(place),
    });
    app.extensionManager.registerSidebarTab({
      id: "rollout-runs", icon: "pi pi-history", title: t("Runs"), tooltip: t("Training runs"), type: "custom", render: renderRuns,
    });
  },
  nodeCreated(node) {
    explainOptions(node.widgets, locale.nodeDefs?.[node.comfyClass]);
    photos.addChoice(node);
    if (node.comfyClass === ROLLOUT) addInspector(node);
    if (node.comfyClass === TRAINER) addView(node, "rollout_loss", new LossCard({ open: () => openPanel(CURVES_TAB, TRAINER, node) }), 220);
    if (OURS.test(node.comfyClass)) fold(node, globalThis.LiteGraph);
    if (views.has(node)) refresh();
  },
  beforeConfigureGraph(graph) {
    if (!graph.extra?.rollout?.opens) return;
    graph.id = newId(); // ComfyUI gives every copy of a template the same one, and what earlier copies did would be shown
    translateTemplate(graph, locale.rolloutTemplates);
  },
  async afterConfigureGraph() {
    colourSockets(app.canvas);
    for (const [, node] of nodesOf(root())) if (OURS.test(node.comfyClass)) fold(node, globalThis.LiteGraph);
    lookAtStart();
    refresh();
    if (!hasLooked) setTimeout(watchWhatRuns); // later: the page is not done with its own graph yet
    await restore();
  },
});
