"""Every template opens calm: readable, on its note, no node over another, no wire under a node; in both renderers."""

import json
from pathlib import Path

import pytest

WORKFLOWS = Path(__file__).resolve().parents[2] / "workflows"
KINDS = ("quickstart_digits", "few_steps_digits", "lora_sd15", "lora_wan", "dreambooth_rollout")
"""One of each way in which nodes stand; tests/graph/test_layout.py looks at the wires of all."""
COVERED = """() => {
    const drawn = ({ id }) => LiteGraph.vueNodesMode ? document.querySelector(`[data-node-id="${id}"]`).offsetHeight : 0
    const boxes = app.graph.nodes.map(node => {
        const [[x, y], [width, height]] = [node.pos, node.size]
        return [node.type, x, y - 30, x + width, y + Math.max(height, drawn(node) - 30)]
    })
    return boxes.flatMap(([one, left, top, right, bottom]) => boxes
        .filter(([other, x, y]) => one !== other && x >= left && x < right && y >= top && y < bottom)
        .map(([other]) => `${one} covers ${other}`))
}"""
UNDER = """() => {
    app.canvas.draw(true, true)
    const pen = document.createElement('canvas').getContext('2d'), found = new Set()
    pen.lineWidth = 9
    for (const link of app.graph.links.values()) {
        const parts = [link, ...(app.graph.reroutes ? link.constructor.getReroutes(app.graph, link) : [])]
        for (const node of app.graph.nodes)
            for (let x = 20; x < node.size[0] - 20; x += 9)
                for (let y = -20; y < node.size[1] - 10; y += 9)
                    for (const part of parts)
                        if (part.path && pen.isPointInStroke(part.path, node.pos[0] + x, node.pos[1] + y))
                            found.add(`${link.id} (${link.type}) under ${node.type}`)
    }
    return [...found]
}"""
"""Asks the very curves that the canvas has drawn; sockets lie within the 20 pixels at the sides."""


@pytest.fixture(scope="module", params=["classic", "Vue"])
def visit(request, open_page):
    visit = open_page()
    visit.renderer = request.param
    visit.evaluate("on => app.extensionManager.setting.set('Comfy.VueNodes.Enabled', on)", request.param == "Vue")
    yield visit
    visit.evaluate("app.extensionManager.setting.set('Comfy.VueNodes.Enabled', false)")  # it is the server's


@pytest.mark.parametrize("name", KINDS)
def test_a_template_opens_calm(visit, keep, name):
    """What it opens on can be read, and what the canvas has drawn covers nothing."""
    workflow = json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))
    visit.evaluate("([workflow, name]) => app.loadGraphData(workflow, true, true, name)", [workflow, name])
    visit.keyboard.press("Escape")  # the templates, which a fresh browser opens
    visit.wait_for_timeout(1500)
    scale, left, top = visit.evaluate(
        """() => { const { ds } = app.canvas, note = app.graph.nodes.find(node => node.type === 'MarkdownNote')
            return [ds.scale, (note.pos[0] + ds.offset[0]) * ds.scale, (note.pos[1] + ds.offset[1]) * ds.scale] }"""
    )
    assert scale >= 0.75
    assert 0 < left < 300
    assert 60 < top < 300
    keep(visit, f"template_{name}_{visit.renderer}")
    assert visit.evaluate(COVERED) == []
    assert visit.evaluate(UNDER) == []
    visit.evaluate("app.extensionManager.command.execute('Comfy.Canvas.FitView')")
    visit.wait_for_timeout(700)
    keep(visit, f"template_{name}_{visit.renderer}_all")
