"""A person whose browser speaks Hindi reads our panels and nodes in Hindi."""

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_hindi(open_page, keep):
    """The tabs, the data set's words, what a node is for; the frontend's own words stay as they are."""
    visit = open_page(locale="hi-IN")
    workflow = json.loads((ROOT / "workflows" / "lora_sd15.json").read_text())
    workflow["extra"] = {"ds": {"scale": 0.45, "offset": [300, 200]}}
    visit.evaluate("workflow => app.loadGraphData(workflow, true, true, 'hindi')", workflow)
    visit.keyboard.press("Escape")
    visit.evaluate("app.extensionManager.command.execute('Workspace.ToggleSidebarTab.rollout-data')")
    visit.locator(".rollout-data").get_by_text("डेटा सेट").first.wait_for()
    visit.locator(".rollout-inspector").get_by_text("यहाँ रोलआउट देखने के लिए").wait_for()
    node = "app.graph.nodes.find(node => node.type === 'RolloutAddLora')"
    tooltip = visit.evaluate(f"{node}.constructor.nodeData.input.required.rank[1].tooltip")
    assert tooltip.startswith("कितना सीख सकता है")
    keep(visit, "hindi")
