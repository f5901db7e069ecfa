"""Our extension in a real browser: what it shows while the quickstart trains, in this order."""

import pytest

READY = "window.app && window.app.extensionManager && app.graph && !document.querySelector('#splash-loader')"
STEPS, LOOK = 60, 15  # more steps than the quickstart's warm-up
SMALL = {
    "RolloutOptimizerStep": {"steps": STEPS, "preview_every": LOOK, "sample_every": 30, "run_name": "inspected"},
    "RolloutSampleImages": {"steps": 2, "count": 1},
}
ON_NODE = ".rollout-inspector:not(.rollout-large)"
LARGE = ".rollout-inspector.rollout-large"


@pytest.fixture(scope="module")
def visit(visit_quickstart):
    """A page of its own with the quickstart, made small, on the canvas."""
    return visit_quickstart("inspected", SMALL)


@pytest.fixture
def keep(visit, studio):
    folder = studio.folder / "screenshots"
    folder.mkdir(exist_ok=True)
    return lambda name: visit.screenshot(path=folder / f"extension_{name}.png")


def colours(visit, selector):
    """How many different colours each canvas shows."""
    return visit.eval_on_selector_all(
        selector,
        """canvases => canvases.map(canvas => new Set(new Uint32Array(canvas.getContext('2d')
            .getImageData(0, 0, canvas.width, canvas.height).data.buffer)).size)""",
    )


def open_tab(visit, tab):
    visit.evaluate("tab => app.extensionManager.bottomPanel.toggleBottomPanelTab(tab)", tab)


def test_before_a_run_the_nodes_say_what_will_be_there(visit, keep):
    """Empty, but not blank; and with max_step_offset 0, why there will be nothing."""
    visit.locator(ON_NODE).get_by_text("Run the workflow to see rollouts here").wait_for()
    visit.locator(".rollout-card").get_by_text("Run the workflow to see the loss here").wait_for()
    set_offset = """value => { const widget = app.graph.nodes.find(node => node.type === 'Rollout')
        .widgets.find(widget => widget.name === 'max_step_offset'); widget.value = value; widget.callback?.(value) }"""
    visit.evaluate(set_offset, 0)
    visit.locator(ON_NODE).get_by_text("Rollouts are off").wait_for()
    visit.evaluate(set_offset, 5)
    visit.locator(ON_NODE).get_by_text("Run the workflow").wait_for()
    keep("empty")


def test_rollouts_and_loss_are_on_the_nodes(visit, keep):
    """After the run: three rows of pictures, one film a look, the loss and that it is finished."""
    visit.evaluate("app.queuePrompt(0, 1)")
    visit.locator(".rollout-card").get_by_text("finished").wait_for(timeout=180_000)
    assert visit.locator(f"{ON_NODE} .rollout-slider").nth(1).get_attribute("max") == str(STEPS // LOOK - 1)
    for row in ("teacher_forced", "rolled_out", "difference"):
        assert min(colours(visit, f"{ON_NODE} .rollout-{row}")) > 2
    assert float(visit.locator(".rollout-loss").inner_text()) > 0
    keep("done")


def test_the_large_inspector_goes_back_to_the_source(visit, keep):
    """At the source nothing differs; every look at an item is side by side."""
    open_tab(visit, "rollout-inspector")
    visit.locator(f"{LARGE} .rollout-history-column").nth(STEPS // LOOK - 1).wait_for()
    assert max(colours(visit, f"{LARGE} .rollout-cells .rollout-difference")) > 2
    visit.locator(f"{LARGE} .rollout-slider").first.fill("0")
    assert set(colours(visit, f"{LARGE} .rollout-cells .rollout-difference")) == {1}
    keep("inspector")


def test_curves_are_drawn(visit, keep):
    """Every chart has more than its frame, and the time is shared out among named nodes; the line of the training is
    over the canvas, not over them."""
    open_tab(visit, "rollout-curves")
    visit.locator(".rollout-shares span").first.wait_for()
    visit.wait_for_timeout(500)
    assert min(colours(visit, ".rollout-chart:not([hidden]) .rollout-plot canvas")) > 10
    assert "Rollout" in visit.locator(".rollout-time").inner_text()
    bar, panel = (visit.locator(name).bounding_box() for name in (".rollout-bar", ".bottom-panel"))
    assert bar["y"] + bar["height"] <= panel["y"]
    keep("curves")


def test_a_node_that_grows_keeps_its_frame(visit):
    """A picture that comes while it trains makes a node higher: the frame around it grows with it."""
    frames = """() => app.graph.groups.map(({ pos, size, children }) =>
        [pos[1] + size[1], ...[...children].map(node => node.pos[1] + node.size[1])])"""
    visit.evaluate("app.graph.groups.forEach(group => group.recomputeInsideNodes())")
    visit.evaluate("""() => { const node = app.graph.nodes.find(node => node.type === 'RolloutNoisyBatch')
        node.setSize([node.size[0], node.size[1] + 300])
        app.api.dispatchCustomEvent('b_preview_with_metadata', { jobId: 'elsewhere', displayNodeId: '-1' }) }""")
    visit.wait_for_timeout(500)
    assert [bottom for bottom, *nodes in visit.evaluate(frames) if nodes and max(nodes) > bottom] == []


def test_what_is_known_from_another_workflow_is_said_here(visit):
    """Nodes that need not run again because another workflow had them say on this one's canvas what they found."""
    visit.evaluate("""() => { const workflow = app.graph.serialize()
        return app.loadGraphData({ ...workflow, id: crypto.randomUUID() }, true, true, 'again') }""")
    visit.wait_for_function("!document.querySelector('.rollout-found')?.innerText")
    visit.evaluate("app.queuePrompt(0, 1)")
    visit.locator(".rollout-found").get_by_text("more forward passes").wait_for(timeout=120_000)


def test_a_reload_forgets_nothing(visit, keep):
    """The pictures and curves of the last run come back with its workflow."""
    visit.reload()
    visit.wait_for_function(f"{READY} && app.graph.nodes.length >= 12")
    visit.locator(f"{ON_NODE} canvas").first.wait_for()
    visit.locator(".rollout-card").get_by_text(f"step {STEPS}").wait_for()


def test_runs_are_listed_and_deleted_only_after_asking(visit, studio, keep, wait):
    """The run is in the sidebar; Cancel keeps it, Delete removes its folder."""
    folder = studio.output / "rollout" / "inspected_00001"
    visit.evaluate("app.extensionManager.command.execute('Workspace.ToggleSidebarTab.rollout-runs')")
    run = visit.locator(".rollout-run", has_text="inspected_00001")
    run.get_by_text("finished").wait_for()
    run.get_by_role("button", name="Show the run's files").click()
    run.get_by_text("metrics.jsonl").wait_for()
    keep("runs")
    delete = run.get_by_role("button", name="Delete the run and all its files")
    delete.click()
    visit.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    assert folder.is_dir()
    delete.click()
    visit.get_by_role("dialog").get_by_role("button", name="Delete").click()
    wait(lambda: not folder.exists())
    run.wait_for(state="detached")
