"""A session in ComfyUI's own frontend: a template is opened, trained, watched, and its LoRA drawn with."""

import json
import re
import shutil
from importlib.util import find_spec

import pytest
from comfy_process import read_json

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = ("--headless", "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking")
READY = "window.app && window.app.extensionManager && app.graph && !document.querySelector('#splash-loader')"
TEMPLATE = "comfyui_train_any_model"

pytestmark = pytest.mark.skipif(
    find_spec("playwright") is None or CHROMIUM is None, reason="a browser is needed: playwright, and chromium"
)


@pytest.fixture(scope="module")
def page(comfy):
    """A page of a fresh browser at ComfyUI; ``page.missing`` has the addresses that were not found."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        page = browser.new_context(viewport={"width": 1600, "height": 1000}).new_page()
        page.set_default_timeout(60_000)
        page.missing, page.wrong = [], []
        page.on("response", lambda reply: page.missing.append(reply.url) if reply.status >= 400 else None)
        page.on("pageerror", lambda error: page.wrong.append(str(error)))
        page.goto(f"http://{comfy.address}")
        page.wait_for_function(READY)
        yield page
        browser.close()


def ours(addresses):
    return [address for address in addresses if "rollout" in address.lower()]


def test_the_page_finds_all_of_ours(page):
    """No address of ours is missing when the page is loaded, and our extension is at work."""
    page.wait_for_timeout(2000)
    assert ours(page.missing) == []
    assert page.evaluate("app.extensions.some(({ name }) => /rollout/i.test(name))")


def test_the_template_is_opened(comfy, page, photos):
    """As the template browser does it; a tiny model takes the loader's place, and everything is made small."""
    offered = json.loads(comfy.get("/workflow_templates"))
    pack = next(name for name, names in offered.items() if TEMPLATE in names)
    workflow = json.loads(comfy.get(f"/api/workflow_templates/{pack.replace(' ', '%20')}/{TEMPLATE}.json"))
    for node in workflow["nodes"]:
        if node["type"] == "CheckpointLoaderSimple":
            node |= {"type": "TinyComfy", "widgets_values": ["sd"], "inputs": [], "properties": {}}
            node.pop("widgets_values_named", None)
    page.evaluate("workflow => app.loadGraphData(workflow, true, true, 'any model')", workflow)
    page.keyboard.press("Escape")
    small = {"width": 64, "height": 64, "steps": 2, "size": 64, "preview_every": 1, "folder": str(photos / "pagoda")}
    page.evaluate(
        """small => {
            for (const node of app.graph.nodes)
                for (const widget of node.widgets ?? [])
                    if (widget.name in small) widget.value = small[widget.name]
            app.graph.nodes.find(({ type }) => type === "RolloutOptimizerStep")
                .widgets.find(({ name }) => name === "steps").value = 12
        }""",
        small,
    )
    assert page.evaluate("app.graph.nodes.filter(({ type }) => type.startsWith('Rollout')).length") >= 10
    assert page.evaluate("app.graph.id") != workflow["id"]  # or what an earlier copy did would be shown
    colours = "['MODEL', 'DATASET', 'LOSS'].map(name => app.canvas.constructor.link_type_colors[`ROLLOUT_${name}`])"
    assert len(set(page.evaluate(colours))) == 3


def test_it_is_trained_and_drawn_with(comfy, page):
    """Queued from the page: previews reach our nodes while it trains, and KSampler draws with and without the LoRA."""
    page.evaluate(
        """() => {
            window.seen = new Set()
            app.api.addEventListener("rollout.metrics", () => seen.add("metrics"))
            app.api.addEventListener("rollout.frames", () => seen.add("frames"))
            app.api.addEventListener("execution_success", () => seen.add("done"))
            app.api.addEventListener("execution_error", ({ detail }) => seen.add(detail.exception_message))
            app.queuePrompt(0)
        }"""
    )
    page.wait_for_function("seen.has('done') || [...seen].some(word => word.length > 10)", timeout=300_000)
    assert set(page.evaluate("[...seen]")) == {"metrics", "frames", "done"}
    shown = page.evaluate(
        """app.graph.nodes.filter(({ type }) => type === "PreviewImage")
            .map(({ id }) => app.nodeOutputs[id]?.images?.length)"""
    )
    assert shown == [1, 1]
    (folder,) = (comfy.output / "rollout").glob("any_model_*")
    assert read_json(folder / "run.json")["status"] == "finished"


def test_rollouts_stay_in_their_node(page):
    """Three rows of one picture, as large as the node has room for, and the controls below them."""
    page.wait_for_function("document.querySelector('.rollout-inspector .rollout-cell')?.width > 0")
    beyond = page.evaluate(
        """() => {
            const end = (one) => one.getBoundingClientRect().bottom
            return [...document.querySelectorAll('.rollout-inspector')].map(
                (one) => end(one.querySelector('.rollout-controls')) - end(one)
            )
        }"""
    )
    assert len(beyond) == 1
    assert beyond[0] <= 1


def test_samples_are_shown_small(page):
    """By the pack's own copies of pictures, on ComfyUI's server."""
    with page.expect_response(re.compile("/api/rollout/thumbnail")) as reply:
        page.evaluate("app.extensionManager.bottomPanel.toggleBottomPanelTab('rollout-samples')")
    assert (reply.value.status, reply.value.headers["content-type"].split("/")[0]) == (200, "image")
    page.evaluate("app.extensionManager.bottomPanel.toggleBottomPanelTab('rollout-samples')")
    assert ours(page.missing) == []


def test_the_runs_tab_lists_it(page, tmp_path):
    """With its thumbnail, its files and its workflow."""
    page.evaluate("app.extensionManager.sidebarTab.toggleSidebarTab('rollout-runs')")
    entry = page.locator("article.rollout-run", has_text="any_model")
    entry.first.wait_for()
    page.wait_for_function("document.querySelector('article.rollout-run img')?.complete")
    page.screenshot(path=tmp_path / "runs.png")  # for whoever wants to see it
    assert ours(page.missing) == []
    assert page.wrong == []


def test_pictures_become_a_data_set(comfy, page, photos, tmp_path):
    """Chosen in the Data tab: they lie in ComfyUI's input folder, are seen, captioned, and trained on by the node."""
    page.evaluate("app.extensionManager.sidebarTab.toggleSidebarTab('rollout-data')")
    tab = page.locator(".rollout-data")
    with page.expect_file_chooser() as chosen:
        tab.get_by_role("button", name="Pictures").click()
    chosen.value.set_files(sorted((photos / "flower").iterdir()))
    rows = tab.locator(".rollout-picture")
    rows.nth(2).wait_for()
    page.wait_for_function(
        "[...document.querySelectorAll('.rollout-picture img:not([hidden])')].every(image => image.naturalWidth)"
    )
    (folder,) = (comfy.base / "input" / "datasets").iterdir()
    assert {path.name for path in folder.iterdir()} == {path.name for path in (photos / "flower").iterdir()}
    field = rows.nth(0).locator("textarea")
    assert field.input_value() == "a photo of a flower, number 0"
    with page.expect_response(re.compile("/captions$")) as saved:
        field.fill("a flower in the sun")
        field.blur()
    assert saved.value.ok
    assert (folder / "0.txt").read_text() == "a flower in the sun"
    node = "app.graph.nodes.find(({ type }) => type === 'RolloutImageFolderDataset')"
    choice = page.locator(".rollout-choice select")
    choice.focus()
    page.wait_for_function("document.querySelector('.rollout-choice select').options.length === 2")
    choice.select_option(label=folder.name)
    assert page.evaluate(f"{node}.widgets.find(({{ name }}) => name === 'folder').value") == str(folder)
    page.screenshot(path=tmp_path / "data.png")
    assert ours(page.missing) == []
    assert page.wrong == []


def test_templates_come_by_name(comfy, page):
    """ComfyUI's browser of templates shows ours in that order, each with its picture."""
    page.evaluate("app.extensionManager.command.execute('Comfy.BrowseTemplates')")
    dialog = page.locator("[role=dialog]")
    dialog.get_by_text("comfyui-rollout copy v1.0").click()
    dialog.get_by_text(TEMPLATE).wait_for()
    shown = [name for name in dialog.locator("h3").all_inner_texts() if name.islower()]
    assert shown[:2] == [TEMPLATE, "dreambooth_rollout"]
    assert shown == sorted(shown)
    page.keyboard.press("Escape")


def search(page, words, title):
    """Look for words in the library, until it offers what has this title."""
    page.keyboard.press("Escape")
    page.locator("[role=combobox]:focus").wait_for(state="hidden")
    page.mouse.dblclick(800, 500)
    page.locator("[role=combobox]:focus").wait_for()
    page.keyboard.type(words)
    page.locator("[role=option]", has_text=re.compile(rf"^\s*{title}")).first.wait_for()


@pytest.mark.parametrize(
    ("words", "node"),
    [
        ("prodigy", "Optimizer"), ("cfg", "Sample Prompts"), ("rank", "Train ComfyUI Model"),
        ("bucket", "Image Folder"), ("epoch", "Optimizer Step"), ("batch size", "Image Folder"),
        ("gradient checkpointing", "Train ComfyUI Model"), ("unipc", "Rollout"), ("tag", "Encode Dataset"),
        ("steps", "Optimizer Step"),
    ],
)  # fmt: skip
def test_words_of_trainers_find_nodes(page, words, node):
    """As people type them, below one root."""
    search(page, words, node)


def test_a_blueprint_is_one_node(page):
    """Taken from the library it is a node with what people change, and its graph is queued with their values."""
    page.evaluate("app.graph.clear()")
    search(page, "LoRA Training in One Node", "LoRA Training in One Node")
    page.keyboard.press("Enter")
    page.wait_for_function("app.graph.nodes.length === 1")
    widgets = page.evaluate("app.graph.nodes[0].widgets.map(({ name }) => name)")
    assert {"folder", "trigger_word", "steps", "rank", "learning_rate", "prompts", "name"} <= set(widgets)
    page.evaluate("app.graph.nodes[0].widgets.find(({ name }) => name === 'steps').value = 7")
    prompt = page.evaluate("app.graphToPrompt().then(({ output }) => output)")
    (trainer,) = (node for node in prompt.values() if node["class_type"] == "RolloutOptimizerStep")
    assert trainer["inputs"]["steps"] == 7
    assert page.wrong == []
