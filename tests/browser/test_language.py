"""A person whose browser speaks Hindi reads our panels, nodes and templates in Hindi."""

import re

import pytest

NODE = "app.graph.nodes.find(node => node.type === '{}')"


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


def test_panels_are_hindi(visit, keep):
    """The tabs and the data set's words; the frontend's own words stay as they are."""
    visit.evaluate("app.extensionManager.command.execute('Workspace.ToggleSidebarTab.rollout-data')")
    visit.locator(".rollout-data").get_by_text("डेटा सेट").first.wait_for()
    visit.locator(".rollout-inspector").get_by_text("यहाँ रोलआउट देखने के लिए").wait_for(state="attached")
    keep(visit, "hindi")


def test_what_was_saved_is_not_translated(visit):
    """Once it is open the workflow is the person's own: written in English, it stays in English."""
    workflow = visit.evaluate("app.graph.serialize()")
    assert "opens" not in workflow["extra"]["rollout"]
    (note,) = [node for node in workflow["nodes"] if node["type"] == "MarkdownNote"]
    note["title"] = "Read me"
    visit.evaluate("workflow => app.loadGraphData(workflow, true, true, 'mine')", workflow)
    assert visit.evaluate(NODE.format("MarkdownNote") + ".title") == "Read me"
