"""The samples of a run have a history: a walk through it, with the mouse and with keys."""

import json

import pytest

SMALL = {
    "RolloutOptimizerStep": {"steps": 40, "preview_every": 0, "sample_every": 10, "run_name": "gallery"},
    "RolloutNewModel": {"width": 8},
    "RolloutSampleImages": {"steps": 2, "count": 1, "labels": "0-2"},
}
LARGE = ".rollout-sample"
PIXELS = """selector => { const canvas = document.querySelector(selector)
    return canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.join() }"""


@pytest.fixture(scope="module")
def visit(visit_quickstart):
    visit = visit_quickstart("gallery", SMALL)
    visit.evaluate("app.queuePrompt(0, 1)")
    visit.locator(".rollout-bar").get_by_text("Model saved").wait_for(timeout=120_000)
    visit.evaluate("app.extensionManager.bottomPanel.toggleBottomPanelTab('rollout-samples')")
    return visit


def test_every_class_is_shown_at_every_step(visit, keep):
    """A row a class, a column a step, the newest one large."""
    visit.locator(".rollout-sample-cell").nth(11).wait_for()
    labels = [cell.get_attribute("aria-label") for cell in visit.locator(".rollout-sample-cell").all()]
    assert labels == [f"{name}, step {step}" for name in range(3) for step in (10, 20, 30, 40)]
    visit.locator(LARGE).get_by_text("step 40 · 4/4").wait_for()
    keep(visit, "gallery")


def test_two_steps_are_compared(visit, keep):
    """Shift-click puts a step on the other side of the line; the line follows the slider."""
    visit.locator(".rollout-sample-cell").first.click(modifiers=["Shift"])
    visit.locator(f"{LARGE} .rollout-wipe-right").get_by_text("step 10").wait_for()
    assert visit.evaluate(PIXELS, f"{LARGE} canvas") != visit.evaluate(PIXELS, f"{LARGE} .rollout-wipe-above")
    visit.locator(f"{LARGE} .rollout-wipe .rollout-slider").fill("20")
    assert "20%" in visit.locator(f"{LARGE} .rollout-wipe-above").get_attribute("style")
    keep(visit, "gallery_compared")


def test_keys_walk_steps_and_prompts_and_fill_the_page(visit, keep):
    """Arrows walk, Enter is full size and back; the keys reach nothing else."""
    visit.locator(LARGE).focus()
    visit.keyboard.press("ArrowLeft")
    visit.keyboard.press("ArrowDown")
    visit.locator(LARGE).get_by_text("step 30 · 3/4").wait_for()
    assert visit.locator(f"{LARGE} figcaption").inner_text() == "1"
    visit.keyboard.press("Enter")
    visit.locator(".rollout-dialog[open]").wait_for()
    visit.keyboard.press("Home")
    visit.locator(f".rollout-dialog {LARGE}").get_by_text("step 10 · 1/4").wait_for()
    keep(visit, "gallery_full")
    visit.keyboard.press("Enter")
    visit.locator(f".rollout-samples {LARGE}").wait_for()


def test_a_picture_that_is_gone_breaks_nothing(visit, studio):
    """A run whose graph cannot be read shows its sheets whole."""
    folder = studio.output / "rollout" / "gallery_00001"
    graph = json.loads((folder / "prompt.json").read_text())
    (folder / "prompt.json").write_text("{")
    visit.evaluate("app.extensionManager.bottomPanel.toggleBottomPanelTab('rollout-samples')")
    visit.evaluate("app.extensionManager.bottomPanel.toggleBottomPanelTab('rollout-samples')")
    visit.locator(LARGE).get_by_text("samples", exact=True).wait_for()
    (folder / "prompt.json").write_text(json.dumps(graph))
