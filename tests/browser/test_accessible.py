"""Everybody can use our panels: axe-core finds no serious fault, and the keyboard reaches whatever can be clicked."""

import json
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
AXE = Path(os.environ.get("AXE", ROOT / ".venv" / "node_modules" / "axe-core" / "axe.min.js"))
SIZES = [(1440, 900), (1280, 720), (390, 844)]
FAULTS = """async panel => (await axe.run(panel)).violations
    .filter(({ impact }) => ['serious', 'critical'].includes(impact))
    .map(({ id, nodes }) => `${id}: ${nodes[0].html.slice(0, 200)} ${nodes[0].failureSummary.slice(0, 300)}`)"""
UNREACHED = """panel => {
    const shown = [...document.querySelectorAll(`${panel} *`)].filter(one => one.checkVisibility() && !one.disabled)
    const control = 'button, a[href], input, select, textarea, summary, [tabindex]'
    const points = shown.filter(one => getComputedStyle(one).cursor === 'pointer')
    const roots = [...document.querySelectorAll(panel)]
    const within = one => one && roots.some(root => root !== one && root.contains(one)) ? one : null
    const near = one => within(one.closest(control)) ?? one
    const clicked = points.filter(one => !one.closest('label, [aria-hidden=true]')).map(near)
    const wanted = new Set([...clicked, ...shown.filter(one => one.matches(control))])
    return [...wanted].filter(one => {
        one.focus()
        return one.tabIndex < 0 || document.activeElement !== one
    }).map(one => one.outerHTML.slice(0, 200))
}"""


@pytest.fixture(scope="module")
def filled(studio):
    """A run and a data set, as they are found on a disk."""
    run, pictures = studio.output / "rollout" / "seen_00001", studio.output.parent / "input" / "datasets" / "seen"
    (run / "samples").mkdir(parents=True)
    pictures.mkdir(parents=True)
    facts = {"status": "finished", "steps": 20, "steps_done": 20, "seconds": 9, "started": "2026-01-01T00:00:00+0000"}
    (run / "run.json").write_text(json.dumps(facts))
    (run / "notes.json").write_text(json.dumps({"tags": ["good"], "note": "soft"}))
    node = {"class_type": "RolloutSamplePrompts", "inputs": {"prompts": "a cat", "count": 1, "seed": 1}}
    (run / "prompt.json").write_text(json.dumps({"8": node}))
    rows = [{"step": step, "loss": 1 / (step + 1), "drift": 0.1, "seconds": {"8": 1}} for step in range(20)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for step in (10, 20):
        Image.new("RGB", (64, 64), "teal").save(run / "samples" / f"8_step_{step:06d}.png")
    for name in ("a.png", "b.png", "a-masklabel.png"):
        Image.new("RGB", (300, 200), "teal").save(pictures / name)
    (pictures / "raw.cr2").write_bytes(b"x")
    yield studio
    for folder in (run, pictures):  # the server is everybody's
        shutil.rmtree(folder)


def open_tab(page, tab):
    page.keyboard.press("Escape")
    page.evaluate(f"app.extensionManager.sidebarTab.activeSidebarTabId === '{tab}' || "
                  f"app.extensionManager.command.execute('Workspace.ToggleSidebarTab.{tab}')")  # fmt: skip


needs_axe = pytest.mark.skipif(not AXE.is_file(), reason="axe-core is not there: make .venv/axe (needs npm)")
at_each_size = pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")


@needs_axe
@at_each_size
def test_nobody_is_left_out(filled, open_page, keep, size):
    """In all of our panels, at the size of a desk, a laptop and a telephone."""
    page = open_page(*size)
    page.evaluate(AXE.read_text(encoding="utf-8"))
    faults, unreached = [], []

    def look(panel, name):
        keep(page, f"accessible_{name}_{size[0]}")
        faults.extend(page.evaluate(FAULTS, panel))
        unreached.extend(page.evaluate(UNREACHED, panel))

    open_tab(page, "rollout-data")
    page.locator(".rollout-picture").first.wait_for()
    look(".rollout-data", "data")
    open_tab(page, "rollout-runs")
    run = page.locator(".rollout-run", has_text="seen_00001")
    run.get_by_role("button", name="Write tags and a note").click()
    run.get_by_role("button", name="Show the run's files").click()
    run.locator(".rollout-files a").first.wait_for()
    look(".rollout-runs", "runs")
    run.get_by_role("button", name="Draw the run's curves").evaluate("button => button.click()")
    page.locator(".rollout-chart canvas").first.wait_for()
    look(".rollout-slot", "curves")
    open_tab(page, "rollout-runs")  # on a telephone it has made way for the curves
    run.get_by_role("button", name="Samples over the training").evaluate("button => button.click()")
    page.locator(".rollout-sample-cell").first.wait_for()
    look(".rollout-slot", "samples")
    assert faults == []
    assert unreached == []


@pytest.fixture(scope="module")
def training(visit_quickstart):
    """A page in which the quickstart trains until it is told to stop."""
    page = visit_quickstart("seen", {"RolloutOptimizerStep": {"steps": 100_000, "preview_every": 5}})
    page.evaluate("app.queuePrompt(0, 1)")
    page.locator(".rollout-bar .rollout-track").wait_for()
    yield page
    page.evaluate("app.api.interrupt(null)")


@needs_axe
@at_each_size
def test_nobody_is_left_out_of_a_training(training, open_page, keep, size):
    """The line over the canvas, and the film opened large with its history; whoever comes later watches, too."""
    page = open_page(*size)
    page.evaluate(AXE.read_text(encoding="utf-8"))
    page.locator(".rollout-bar .rollout-track").wait_for()
    page.wait_for_function("!document.querySelector('[role=dialog]')")  # the templates, which keep the keyboard
    faults = page.evaluate(FAULTS, ".rollout-bar")
    unreached = page.evaluate(UNREACHED, ".rollout-bar")
    page.evaluate("app.extensionManager.bottomPanel.toggleBottomPanelTab('rollout-inspector')")
    page.locator(".rollout-large .rollout-cell").first.wait_for()
    page.locator(".rollout-large .rollout-history-column").nth(1).wait_for()
    keep(page, f"accessible_film_{size[0]}")
    faults += page.evaluate(FAULTS, ".rollout-large")
    unreached += page.evaluate(UNREACHED, ".rollout-large")
    assert faults == []
    assert unreached == []


@needs_axe
def test_nobody_is_left_out_of_an_end(training, keep):
    """What is offered after a training: its buttons, and the way to close them."""
    training.evaluate(AXE.read_text(encoding="utf-8"))
    training.locator(".rollout-bar").get_by_role("button", name="Stop").click()
    training.locator(".rollout-bar").get_by_role("button", name="Resume").wait_for()
    keep(training, "accessible_end")
    assert training.evaluate(FAULTS, ".rollout-bar") == []
    assert training.evaluate(UNREACHED, ".rollout-bar") == []
