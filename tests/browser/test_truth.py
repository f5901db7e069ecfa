"""What the canvas says is true: of the workflow that is on it, of the training that goes on, and of its end."""

import json
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

LONG = {
    "RolloutOptimizerStep": {"steps": 100_000, "preview_every": 5, "sample_every": 0, "run_name": "truth"},
    "RolloutNewModel": {"width": 8},
}
PAINTED = """() => [app.graph.nodes.filter(node => node.progress > 0).length, Object.keys(app.nodeOutputs).length,
    app.graph.nodes.filter(node => app.nodePreviewImages[node.id]).length]"""


@pytest.fixture(scope="module")
def visit(visit_quickstart):
    return visit_quickstart("truth", LONG)


@pytest.fixture(scope="module")
def other(open_page, visit):
    """A second browser, which comes while the first one's training goes on."""
    visit.evaluate("app.queuePrompt(0, 1)")
    visit.locator(".rollout-bar").get_by_text("of 100,000").wait_for()
    return open_page()


WORKING = "() => app.graph.nodes.filter(node => node.progress > 0).map(node => node.type)"
OVER_A_SECOND = f"""async () => {{
  const seen = new Set();
  for (let look = 0; look < 20; look++) {{
    for (const type of ({WORKING})()) seen.add(type);
    await new Promise((go) => setTimeout(go, 50));
  }}
  return [...seen];
}}"""


def test_the_training_is_told_in_steps_and_time(visit, other):
    """The bar and the frontend's own progress name the node that trains, not those that it pulls."""
    bar = visit.locator(".rollout-bar")
    bar.get_by_text("Optimizer Step").wait_for()
    visit.wait_for_function("document.querySelector('.rollout-bar').innerText.includes('left')")
    visit.wait_for_function("document.title.includes('OptimizerStep')")
    visit.wait_for_function(
        "/Total:\\s*[0-5]%/.test(document.body.innerText)"
    )  # most nodes are done, the training is not
    visit.wait_for_function(f"({WORKING})().join() === 'RolloutOptimizerStep'")  # the model is made by then
    assert visit.evaluate(OVER_A_SECOND) == ["RolloutOptimizerStep"]


def test_a_rollout_is_drawn_once_and_its_cost_is_said(visit, other):
    """The inspector is the node's picture; what the node found stands below it."""
    rollout = visit.evaluate("app.graph.nodes.find(node => node.type === 'Rollout').id")
    visit.wait_for_function("app.graph.nodes.some(node => app.nodePreviewImages[node.id])")
    assert visit.evaluate("id => app.nodePreviewImages[id]", rollout) is None
    visit.locator(".rollout-found").get_by_text("more forward passes").wait_for()


def test_who_comes_later_sees_what_runs(other, keep):
    """A fresh browser opens the running workflow instead of the templates."""
    other.wait_for_function("app.graph.nodes.length >= 12")
    other.locator(".rollout-bar").get_by_text("Optimizer Step").wait_for()
    other.locator("[role=dialog]").wait_for(state="detached")
    keep(other, "watched")


def test_a_fresh_template_is_blank_while_another_trains(other, studio, keep):
    """Ids are equal in all copies of a template; nothing of the run appears in a new one, which names the other."""
    with urllib.request.urlopen(f"{studio.address}templates/quickstart_digits.json", timeout=30) as reply:
        template = json.load(reply)
    assert template["id"] != json.loads((ROOT / "workflows" / "quickstart_digits.json").read_text())["id"]
    template["extra"] = {"ds": {"scale": 0.45, "offset": [100, 200]}}  # all of it in the window
    other.evaluate("workflow => app.loadGraphData(workflow, true, true, 'fresh')", template)
    other.locator(".rollout-bar").get_by_text("Training in another workflow").wait_for()
    other.wait_for_timeout(1500)  # some ten events of the run
    assert other.evaluate(PAINTED) == [0, 0, 0]
    other.locator(".rollout-card").get_by_text("Run the workflow to see the loss here").wait_for()
    keep(other, "fresh")


def test_a_stop_is_no_failure(visit, other, keep):
    """Stopped, saved, after which step, and how to go on; nothing says "failed"."""
    visit.locator(".rollout-bar").get_by_role("button", name="Stop the run").click()
    visit.locator(".rollout-bar").get_by_text("Stopped, saved").wait_for()
    visit.wait_for_timeout(2500)
    keep(visit, "stopped")
    assert visit.get_by_text("failed").count() == 0
    assert visit.locator(".rollout-bar").get_by_role("button", name="Go on with the run").count() == 1


def test_a_wrong_input_says_why_at_once(visit):
    """The toast holds the reason, not only that there is one."""
    visit.evaluate("app.graph.nodes.find(node => node.type === 'RolloutOptimizerStep')"
                   ".widgets.find(widget => widget.name === 'run_name').value = 'a/b'")  # fmt: skip
    visit.evaluate("app.queuePrompt(0, 1)")
    visit.get_by_test_id("error-overlay-messages").get_by_text("a/b").wait_for()


def test_a_node_that_failed_says_why(visit, photos, keep):
    """On the node and in the frontend's message: what is wrong and what to do, not only that something is."""
    workflow = json.loads((ROOT / "workflows" / "lora_sd15.json").read_text(encoding="utf-8"))
    visit.evaluate("workflow => app.loadGraphData(workflow, true, true, 'failing')", workflow)
    values = {"RolloutImageFolderDataset": str(photos / "flower"), "RolloutLoadPretrained": "somebody/nothing"}
    visit.evaluate(
        """values => {
            for (const node of app.graph.nodes)
                for (const widget of (node.type in values && node.widgets) || [])
                    if (['folder', 'path'].includes(widget.name)) widget.value = values[node.type]
        }""",
        values,
    )
    visit.evaluate("void app.queuePrompt(0, 1)")
    why = "the model 'somebody/nothing' is not here"
    visit.locator(".rollout-found").get_by_text(f"✗ {why}").wait_for()
    visit.get_by_test_id("error-overlay-messages").get_by_text(why).wait_for()
    keep(visit, "failed")
    assert visit.get_by_text(why).filter(visible=True).count() == 2
