"""A person whose browser speaks Hindi reads our panels, nodes and templates in Hindi."""

import json
import re
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

NODE = "app.graph.nodes.find(node => node.type === '{}')"


FAULTS = "Object.values(app.lastNodeErrors ?? {}).flatMap(({ errors }) => errors.map(({ details }) => details))"
TRAIN = """() => {
    const of = (type) => app.graph.nodes.find((node) => node.type === type).widgets;
    of("RolloutOptimizerStep").find(({ name }) => name === "steps").value = 4;
    of("RolloutNewModel").find(({ name }) => name === "width").value = 8;
    return app.queuePrompt(0, 1);
}"""


@pytest.fixture(scope="module")
def visit(open_page):
    """The template for Stable Diffusion 1.5, opened from the template browser that a first visit shows."""
    visit = open_page(locale="hi-IN")
    visit.get_by_text("Stable Diffusion 1.5 के लिए LoRA").first.click()
    visit.wait_for_function("app.graph.nodes.some(node => node.type === 'RolloutAddLora')")
    return visit


def test_a_template_is_hindi(visit, keep):
    """Its note, the titles of its groups and nodes; not the names that people know nodes and inputs by."""
    assert visit.evaluate(NODE.format("MarkdownNote") + ".widgets[0].value").startswith(
        "# Stable Diffusion 1.5 के लिए LoRA\n\nआपकी तस्वीरों पर LoRA ट्रेन करता है"
    )
    visit.get_by_text("रोलआउट कैसे होता है।").first.wait_for()
    assert visit.evaluate(NODE.format("RolloutImageFolderDataset") + ".title") == "आपकी तस्वीरें"
    assert visit.evaluate(NODE.format("RolloutAddLora") + ".title") == "Add LoRA"
    titles = visit.evaluate("app.graph._groups.map(group => group.title)")
    assert titles
    assert not [title for title in titles if not re.search("[\u0900-\u097f]", title)]
    keep(visit, "hindi_template")


def test_nodes_are_hindi(visit):
    """What inputs and outputs are for, where nodes are listed, and what the words mean that a widget offers."""
    data = visit.evaluate(NODE.format("RolloutAddLora") + ".constructor.nodeData")
    assert data["input"]["required"]["rank"][1]["tooltip"].startswith("कितना सीख सकता है")
    assert data["output_tooltips"][0].startswith("एडैप्टर के साथ मॉडल")
    assert data["category"] == "training/रोलआउट/मॉडल"
    crop = NODE.format("RolloutImageFolderDataset") + ".widgets.find(widget => widget.name === 'crop')"
    assert visit.evaluate(f"[{crop}.value, {crop}._displayValue]") == ["center", "center (बीच का)"]
    prompt = visit.evaluate("app.graphToPrompt().then(({ output }) => output)")
    (pictures,) = [node for node in prompt.values() if node["class_type"] == "RolloutImageFolderDataset"]
    assert pictures["inputs"]["crop"] == "center"


def test_blueprints_are_hindi(visit, keep):
    """The library lists the graph in one node by its Hindi name; the English name finds it as well."""
    visit.evaluate("app.extensionManager.command.execute('Workspace.ToggleSidebarTab.node-library')")
    visit.get_by_placeholder("Search Nodes...").fill("LoRA Training in One Node")
    visit.get_by_text("एक नोड में LoRA ट्रेनिंग").first.wait_for()
    keep(visit, "hindi_blueprint")


def test_panels_are_hindi(visit, keep):
    """The tabs and the data set's words; the frontend's own words stay as they are."""
    visit.evaluate("app.extensionManager.command.execute('Workspace.ToggleSidebarTab.rollout-data')")
    visit.locator(".rollout-data").get_by_text("डेटा सेट").first.wait_for()
    visit.locator(".rollout-inspector").get_by_text("यहाँ रोलआउट देखने के लिए").wait_for(state="attached")
    keep(visit, "hindi")


def test_what_is_missing_is_said_in_hindi(visit, keep):
    """The frontend's own place for what is wrong shows our reason in the person's language."""
    visit.evaluate("app.queuePrompt(0, 1)")
    visit.get_by_test_id("error-overlay-messages").get_by_text(re.compile("[\u0900-\u097f]")).first.wait_for()
    faults = visit.evaluate(FAULTS)
    assert faults
    assert not [fault for fault in faults if not re.search("[\u0900-\u097f]", fault)]
    keep(visit, "hindi_missing")


def test_what_was_saved_is_not_translated(visit):
    """Once it is open the workflow is the person's own: written in English, it stays in English."""
    workflow = visit.evaluate("app.graph.serialize()")
    assert "opens" not in workflow["extra"]["rollout"]
    (note,) = [node for node in workflow["nodes"] if node["type"] == "MarkdownNote"]
    note["title"] = "Read me"
    visit.evaluate("workflow => app.loadGraphData(workflow, true, true, 'mine')", workflow)
    assert visit.evaluate(NODE.format("MarkdownNote") + ".title") == "Read me"


def test_what_nodes_found_is_hindi(visit, studio, keep):
    """On the nodes; the server, and with it its log, keeps to English."""
    workflow = json.loads((ROOT / "workflows" / "quickstart_digits.json").read_text(encoding="utf-8"))
    workflow["extra"] = {"ds": {"scale": 0.5, "offset": [60, 200]}}  # all of it in the window
    visit.evaluate("workflow => app.loadGraphData(workflow, true, true, 'digits')", workflow)
    visit.evaluate(TRAIN)
    found = visit.locator(".rollout-found")
    found.get_by_text("फ़ॉरवर्ड पास और लगते हैं").wait_for()
    found.get_by_text("रन का फ़ोल्डर: ").wait_for(state="attached")
    visit.locator(".rollout-bar").get_by_text("मॉडल सेव हुआ").wait_for()
    keep(visit, "hindi_found")
    with urllib.request.urlopen(f"{studio.address}jobs?limit=1&sort_order=desc", timeout=30) as reply:
        (job,) = json.load(reply)["jobs"]
    with urllib.request.urlopen(f"{studio.address}jobs/{job['id']}", timeout=30) as reply:
        outputs = json.load(reply)["outputs"]
    assert any(
        line.startswith("the run's folder is ") for output in outputs.values() for line in output.get("text", ())
    )
