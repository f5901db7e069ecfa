"""A run is stopped and resumed in a real browser: the tests are its steps, in this order."""

import json

import pytest

RUN = "resumed_00001"
LONG = {
    "RolloutOptimizerStep": {"steps": 100_000, "preview_every": 5, "sample_every": 0, "run_name": "resumed"},
    "RolloutNewModel": {"width": 8},
}


@pytest.fixture(scope="module")
def visit(visit_quickstart):
    visit = visit_quickstart("resumed", LONG)
    visit.evaluate("app.extensionManager.command.execute('Workspace.ToggleSidebarTab.rollout-runs')")
    return visit


@pytest.fixture
def folder(studio):
    return studio.output / "rollout" / RUN


@pytest.fixture
def entry(visit):
    return visit.locator(".rollout-run", has_text=RUN)


def steps_of(folder):
    """The steps in metrics.jsonl, without a line that is being written."""
    path = folder / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
    return [json.loads(line)["step"] for line in lines if line.endswith("\n")]


def test_a_running_run_is_stopped_in_its_list(visit, folder, entry, wait):
    """It can be stopped, and not be resumed before that; then it can."""
    visit.evaluate("app.queuePrompt(0, 1)")
    wait(lambda: len(steps_of(folder)) >= 20)
    entry.get_by_role("button", name="Stop the run").wait_for()
    assert entry.get_by_role("button", name="Go on with the run").count() == 0
    entry.get_by_role("button", name="Stop the run").click()
    entry.get_by_role("button", name="Go on with the run").wait_for()
    assert (folder / "state" / "state.json").is_file()


def test_resume_goes_on_in_the_same_folder(visit, folder, entry, studio, wait, shoot):
    """One click: the page says from where, no step is done twice, and the curve begins where the run began."""
    stopped_at = len(steps_of(folder))
    entry.get_by_role("button", name="Go on with the run").click()
    visit.get_by_text(f"{RUN} goes on after step {stopped_at} of 100000").first.wait_for()
    wait(lambda: len(steps_of(folder)) >= stopped_at + 20)
    visit.wait_for_function("steps => Number(document.querySelector('.rollout-card')?.innerText"
                            ".match(/step ([\\d,]+)/)?.[1].replace(',', '')) > steps", arg=stopped_at)  # fmt: skip
    inspector = visit.locator(".rollout-inspector:not(.rollout-large) .rollout-slider").nth(1)
    wait(lambda: int(inspector.get_attribute("max")) > stopped_at // 5)  # films from before the stop are there, too
    visit.screenshot(path=studio.folder / "screenshots" / "resumed.png")
    entry.get_by_role("button", name="Stop the run").click()
    entry.get_by_role("button", name="Go on with the run").wait_for()
    steps = steps_of(folder)
    assert steps == list(range(len(steps)))
    assert [resumed["step"] for resumed in json.loads((folder / "run.json").read_text())["resumed"]] == [stopped_at]


def test_the_workflow_that_is_kept_begins_anew(visit, folder):
    """Loaded from the list, it is a new run: its resume is empty, by place and by name."""
    workflow = json.loads((folder / "workflow.json").read_text())
    (trainer,) = [node for node in workflow["nodes"] if node["type"] == "RolloutOptimizerStep"]
    assert RUN not in json.dumps(trainer)
    (trainer,) = [node for node in json.loads((folder / "prompt.json").read_text()).values()
                  if node["class_type"] == "RolloutOptimizerStep"]  # fmt: skip
    assert trainer["inputs"]["resume"] == ""
