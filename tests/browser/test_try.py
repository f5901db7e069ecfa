"""A LoRA of a model that works in latents is trained in the studio, and tried: without, with it, one's own prompts."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NODE = "app.graph.nodes.find(node => node.type === '{}')"
LARGE = ".rollout-sample"
SIDES = """() => {
    const find = name => document.querySelector(`.rollout-sample ${name}`)
    const [below, above] = ['canvas', '.rollout-wipe-above'].map(find)
    const read = one => one.getContext('2d').getImageData(0, 0, one.width, one.height).data.join()
    return [read(below) === read(above), document.querySelector('.rollout-wipe-picture').getBoundingClientRect().width,
        below.getBoundingClientRect().width, below.width / below.height]
}"""


@pytest.fixture(scope="module")
def visit(open_page, tiny_pipeline, photos):
    """The LoRA template, made small, has run."""
    visit = open_page()
    workflow = json.loads((ROOT / "workflows" / "lora_sd15.json").read_text(encoding="utf-8"))
    visit.evaluate("workflow => app.loadGraphData(workflow, true, true, 'lora')", workflow)
    visit.keyboard.press("Escape")
    folder = next(path.parent for path in photos.rglob("*.*") if path.suffix in (".jpg", ".png"))
    small = {
        "RolloutLoadPretrained": {"path": str(tiny_pipeline("sd")), "storage": "fp32"},
        "RolloutImageFolderDataset": {"folder": str(folder), "size": 64, "batch_size": 2},
        "RolloutSamplePrompts": {"prompts": "a cat\na dog", "steps": 2, "width": 64, "height": 64},
        "RolloutOptimizer": {"learning_rate": 0.05, "schedule": "constant"},
        "RolloutOptimizerStep": {
            "steps": 8,
            "precision": "fp32",
            "preview_every": 4,
            "sample_every": 4,
            "run_name": "tried",
        },
        "RolloutSaveLora": {"name": "tried"},
    }
    visit.evaluate(
        """classes => {
            for (const node of app.graph.nodes)
                for (const [name, value] of Object.entries(classes[node.type] ?? {}))
                    (node.widgets.find(widget => widget.name === name) ?? {}).value = value
        }""",
        small,
    )
    visit.evaluate("void app.queuePrompt(0, 1)")
    visit.locator(".rollout-bar").get_by_text("LoRA saved").wait_for(timeout=180_000)
    return visit


def test_it_is_tried_with_ones_own_prompts(visit, keep):
    """The prompts are written in one place; what was drawn opens by itself, without the LoRA beside all of it."""
    visit.locator(".rollout-bar").get_by_role("button", name="Try it").click()
    visit.wait_for_function(f"{NODE.format('PrimitiveNode')}?.widgets?.length > 0")
    visit.evaluate(f"{NODE.format('PrimitiveNode')}.widgets[0].value = 'my own cat\\nmy own dog'")
    keep(visit, "try")
    visit.evaluate("void app.queuePrompt(0, 1)")
    visit.locator(".rollout-sample-cell").nth(7).wait_for(timeout=120_000)
    columns = ["Without the LoRA", *(f"With the LoRA at {strength}" for strength in ("0.5", "0.75", "1"))]
    labels = [cell.get_attribute("aria-label") for cell in visit.locator(".rollout-sample-cell").all()]
    assert labels == [f"my own {animal}, {column}" for animal in ("cat", "dog") for column in columns]
    visit.locator(f"{LARGE} .rollout-wipe-right").get_by_text("Without the LoRA").wait_for()
    visit.wait_for_timeout(1000)
    keep(visit, "tried_lora")
    is_same, picture, canvas, ratio = visit.evaluate(SIDES)
    assert not is_same
    assert picture == pytest.approx(canvas, abs=1)  # the line ends where the picture does
    assert ratio == 1


def test_what_was_tried_is_there_after_a_reload(visit, keep):
    """The newest job of the workflow on the canvas is asked for what it drew."""
    visit.reload()
    visit.wait_for_function("window.app?.graph?.nodes?.some(node => node.type === 'PrimitiveNode')")
    visit.wait_for_function("app.extensionManager?.bottomPanel")
    visit.wait_for_timeout(1000)
    visit.evaluate("void (document.querySelector('.rollout-samples') || "
                   "app.extensionManager.bottomPanel.toggleBottomPanelTab('rollout-samples'))")  # fmt: skip
    visit.locator(f"{LARGE} .rollout-wipe-right").get_by_text("Without the LoRA").wait_for()
    assert visit.get_by_role("combobox", name="Which run").input_value() == "tried:"


def test_its_rollouts_have_the_same_gallery(visit, keep):
    """Items by steps; any two side by side, by keys as well."""
    visit.get_by_role("combobox", name="Which run").select_option("tried_00001")
    visit.get_by_role("combobox", name="Which samples").select_option(label="Rollout: rolled out")
    visit.get_by_role("button", name="item 1, step 4").wait_for()
    visit.locator(LARGE).focus()
    visit.keyboard.press("Home")
    visit.locator(LARGE).get_by_text("step 0 ·").wait_for()
    visit.get_by_role("combobox", name="Compare with").select_option("step:4")
    visit.locator(f"{LARGE} .rollout-wipe-right").get_by_text("step 4").wait_for()
    visit.wait_for_timeout(1000)
    assert not visit.evaluate(SIDES)[0]
    keep(visit, "films")
