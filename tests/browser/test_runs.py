"""After the training: a card says what was saved and offers the next step; every run has all that is kept of it."""

import json

import pytest

SMALL = {
    "RolloutOptimizerStep": {"steps": 20, "preview_every": 10, "sample_every": 10, "run_name": "after"},
    "RolloutNewModel": {"width": 8},
    "RolloutSampleImages": {"steps": 2, "count": 1},
}
TRAINER = "app.graph.nodes.find(node => node.type === 'RolloutOptimizerStep')"
BUTTONS = """() => {
    const edge = document.querySelector('.rollout-runs').getBoundingClientRect().right
    const shown = [...document.querySelectorAll('.rollout-run button')].filter(one => one.offsetParent)
    return shown.map(one => [one.getBoundingClientRect().right, edge, one.title])
}"""
CUT = """() => {
    const name = document.querySelector('.rollout-run-name'), told = name.innerText
    name.innerText = 'a_quickstart_of_a_rather_long_name_00001'
    const isCut = name.scrollWidth > name.clientWidth
    name.innerText = told
    return isCut
}"""


@pytest.fixture(scope="module")
def visit(visit_quickstart):
    visit = visit_quickstart("after", SMALL)
    visit.evaluate("Object.defineProperty(document, 'hasFocus', { value: () => false })")  # the person looks elsewhere
    for steps in (20, 30):
        visit.evaluate(f"{TRAINER}.widgets.find(widget => widget.name === 'steps').value = {steps}")
        visit.evaluate("app.queuePrompt(0, 1)")
        visit.locator(".rollout-bar").get_by_text(f"{steps} steps").wait_for(timeout=120_000)
    return visit


def open_runs(page):
    """The Runs tab, whatever was open before."""
    page.keyboard.press("Escape")
    page.evaluate("document.querySelector('.rollout-runs')?.offsetParent || app.extensionManager.command.execute("
                  "'Workspace.ToggleSidebarTab.rollout-runs')")  # fmt: skip
    page.locator(".rollout-run").first.wait_for()


@pytest.fixture
def run(visit):
    """``run(name)``: its card."""
    open_runs(visit)
    return lambda name: visit.locator(".rollout-run", has_text=name)


def test_a_card_says_what_was_saved(visit, keep):
    """Its name, and the way to its path, its pictures and a try."""
    bar = visit.locator(".rollout-bar")
    bar.get_by_text("Model saved").wait_for()
    visit.wait_for_function("document.title.startsWith('✓ Model saved')")
    assert "quickstart_digits" in bar.inner_text()
    assert [button.inner_text().strip() for button in bar.get_by_role("button").all()][1:4] == [
        "Copy path", "Try it", "Samples",
    ]  # fmt: skip
    keep(visit, "saved")
    visit.keyboard.press("Shift")
    visit.wait_for_function("!document.title.includes('✓')")  # it is seen


def test_a_path_is_copied_where_there_is_no_clipboard(visit):
    """A studio that is not served securely, as one in the next room, has none in the browser."""
    visit.evaluate("""() => {
        Object.defineProperty(navigator, 'clipboard', { value: undefined, configurable: true })
        document.addEventListener('copy', () => (window.copied = document.activeElement.value))
    }""")
    visit.locator(".rollout-bar").get_by_role("button", name="Copy the path").click()
    visit.wait_for_function("window.copied")
    assert "quickstart_digits" in visit.evaluate("window.copied")
    assert visit.evaluate("delete navigator.clipboard && Boolean(navigator.clipboard)")


def test_runs_say_what_differs_and_their_buttons_fit(visit, open_page, keep):
    """In the default width of the sidebar, and on a telephone."""
    for page in (visit, open_page(390, 844)):
        open_runs(page)
        page.locator(".rollout-run", has_text="after_00002").wait_for()
        page.locator(".rollout-changed").get_by_text("steps 20 → 30").wait_for()
        fits = page.evaluate(BUTTONS)
        assert fits
        assert all(right <= edge for right, edge, _ in fits), fits
        assert not page.evaluate(CUT)  # the end of a name is what tells it from others
        keep(page, f"runs_{page.viewport_size['width']}")


def test_on_a_telephone_the_sidebar_makes_way(open_page, keep):
    """Who loads a run sees it, and who compares it sees the whole list of the others."""
    visit = open_page(390, 844)
    open_runs(visit)
    visit.locator(".rollout-run", has_text="after_00001").get_by_role("button", name="Load the run's workflow").click()
    visit.wait_for_function(f"{TRAINER}?.widgets.find(widget => widget.name === 'steps').value === 20")
    visit.locator(".rollout-runs").wait_for(state="detached")
    open_runs(visit)
    visit.locator(".rollout-run", has_text="after_00002").get_by_role("button", name="Draw the run's curves").click()
    visit.locator(".rollout-compare summary").click()
    box = visit.locator(".rollout-compare-list input").first
    box.wait_for()
    keep(visit, "compare_390")
    panel = visit.locator(".bottom-panel").bounding_box()
    assert box.bounding_box()["x"] > panel["x"]


def test_a_loaded_run_brings_its_curves_and_rollouts(visit, run, keep):
    """The canvas shows what it showed when the run had ended, and the newer run keeps its own."""
    run("after_00001").get_by_role("button", name="Load the run's workflow").click()
    visit.wait_for_function(f"{TRAINER}?.widgets.find(widget => widget.name === 'steps').value === 20")
    visit.locator(".rollout-card").get_by_text("step 20 of 20").wait_for()
    visit.locator(".rollout-inspector:not(.rollout-large) canvas").first.wait_for()
    keep(visit, "loaded")


def test_what_was_trained_is_tried(visit, run, keep):
    """Try it puts a graph on the canvas that runs as it is and shows its images."""
    run("after_00002").get_by_role("button", name="Draw with what was learnt").click()
    visit.wait_for_function("app.graph.nodes.some(node => node.type === 'RolloutLoadModel')")
    visit.evaluate("app.queuePrompt(0, 1)")
    sampler = "app.graph.nodes.find(node => node.type === 'RolloutSampleImages').id"
    visit.wait_for_function(f"(app.nodeOutputs[{sampler}]?.images ?? []).length > 0")
    keep(visit, "tried")


def test_a_run_gets_tags_and_a_note(visit, run, studio, keep):
    """Written on its card, kept in its folder; what somebody else wrote meanwhile is told, and not written over."""
    run = run("after_00001")
    run.get_by_role("button", name="Write tags and a note").click()
    run.get_by_role("textbox", name="Tags of").press_sequentially("good, small, Good")
    run.get_by_role("textbox", name="Note on").fill("<b>twenty</b> steps")
    run.get_by_role("button", name="Save tags and note").click()
    run.locator(".rollout-run-note").get_by_text("<b>twenty</b> steps").wait_for()
    notes = studio.output / "rollout" / "after_00001" / "notes.json"
    assert json.loads(notes.read_text()) == {"tags": ["good", "small"], "note": "<b>twenty</b> steps"}
    run.get_by_role("button", name="Write tags and a note").click()
    notes.write_text(json.dumps({"tags": ["theirs"], "note": ""}))
    run.get_by_role("textbox", name="Tags of").fill("mine")
    run.get_by_role("textbox", name="Tags of").press("Enter")
    run.get_by_text("Changed elsewhere: theirs").wait_for()
    assert json.loads(notes.read_text())["tags"] == ["theirs"]
    keep(visit, "notes_conflict")
    run.get_by_role("button", name="Save tags and note").click()
    run.locator(".rollout-chip").get_by_text("mine").wait_for()
    assert json.loads(notes.read_text())["tags"] == ["mine"]
    keep(visit, "notes")


def test_runs_are_shown_by_tag(visit, run, studio):
    """By the chosen tag, or by a click on it; a second click shows all again."""
    (studio.output / "rollout" / "after_00001" / "notes.json").write_text(json.dumps({"tags": ["mine"], "note": ""}))
    visit.get_by_role("button", name="Look again").click()
    run("after_00001").locator(".rollout-chip").get_by_text("mine").wait_for()
    everything = visit.locator(".rollout-run").count()
    visit.locator(".rollout-chip").get_by_text("mine").click()
    assert visit.locator(".rollout-run").count() == 1 < everything
    assert visit.get_by_role("combobox", name="Show only runs with this tag").input_value() == "mine"
    visit.locator(".rollout-chip").get_by_text("mine").click()
    assert visit.locator(".rollout-run").count() == everything


def test_curves_of_runs_are_compared(visit, keep):
    """From their cards, in one chart; the legend says by which settings they differ."""
    for name in ("after_00001", "after_00002"):
        visit.locator(".rollout-run", has_text=name).get_by_role("button", name="Draw the run's curves").click()
    legend = visit.locator(".rollout-chart").first.locator(".rollout-legend")
    legend.get_by_text("after_00001: steps 20").wait_for()
    legend.get_by_text("after_00002: steps 30").wait_for()
    visit.get_by_text("memory (MiB)", exact=True).wait_for()
    visit.locator(".rollout-compare summary").click()
    visit.get_by_role("checkbox", name="after_00002").wait_for()
    keep(visit, "compared")
    visit.get_by_role("checkbox", name="after_00002").uncheck()
    legend.get_by_text("after_00002").wait_for(state="hidden")
