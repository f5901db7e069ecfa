"""A real server and a real browser, shared by the steps of one walk."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = (
    *("--headless", "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)
READY = "window.app && window.app.extensionManager && app.graph && !document.querySelector('#splash-loader')"
SETTINGS = {"LiteGraph.Canvas.MaximumFps": 8}  # a canvas drawn in software would take the time of the training


def missing():
    """Why there can be no walk here, if so."""
    wanted = {
        "playwright": "pip install playwright",
        "comfyui_frontend_package": "pip install comfyui-frontend-package",
    }
    for package, command in wanted.items():
        if find_spec(package) is None:
            return f"{package} is not installed: {command}"
    return None if CHROMIUM else "no chromium found: apt-get install chromium"


@pytest.fixture(scope="session")
def studio(tmp_path_factory):
    """A server with folders of its own, run by a program of its own: its address, folders and log."""
    if missing():
        pytest.skip(missing())
    folder = tmp_path_factory.mktemp("studio")
    (folder / "user").mkdir()
    (folder / "user" / "comfy.settings.json").write_text(json.dumps(SETTINGS))
    command = [sys.executable, str(ROOT / "tests" / "browser" / "studio.py"), "serve", "--port", "0"]
    command += ["--device", "cpu", "--output", str(folder / "output")]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    address = re.search(r"http://\S+", process.stdout.readline())
    assert address, (folder / "log").read_text()
    yield SimpleNamespace(address=address[0], folder=folder, output=folder / "output", process=process)
    process.send_signal(signal.SIGINT)
    try:
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.stdout.close()
    assert "Traceback" not in (folder / "log").read_text()


@pytest.fixture(scope="session")
def page(studio):
    """A page of a fresh browser. What goes wrong in it is kept in ``page.complaints``."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        page = browser.new_context(viewport={"width": 1600, "height": 1000}).new_page()
        page.set_default_timeout(60_000)
        page.complaints = []
        page.on("console", lambda message: page.complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: page.complaints.append(f"page error: {error}"))
        page.on("response", lambda reply: page.complaints.append(reply.url) if reply.status >= 404 else None)
        yield page
        browser.close()


@pytest.fixture(scope="module")
def open_page(page, studio):
    """open_page(width, height, locale): the studio in a browser of its own; nothing may go wrong in it."""
    visits = []

    def open_page(width=1440, height=900, locale="en-GB"):
        visit = page.context.browser.new_context(viewport={"width": width, "height": height}, locale=locale).new_page()
        visits.append(visit)
        visit.set_default_timeout(60_000)
        visit.complaints = []
        visit.on("pageerror", lambda error: visit.complaints.append(str(error)))
        visit.goto(studio.address)
        visit.wait_for_function(READY)
        return visit

    yield open_page
    for visit in visits:
        assert visit.complaints == []
        visit.context.close()


@pytest.fixture(scope="module")
def keep(studio):
    """keep(page, name): keep a picture of any page."""
    folder = studio.folder / "screenshots"
    folder.mkdir(exist_ok=True)
    return lambda page, name: page.screenshot(path=folder / f"{name}.png")


@pytest.fixture(scope="module")
def visit_quickstart(open_page):
    """visit_quickstart(name, values): a page of its own with the quickstart; ``values`` by class and widget."""

    def visit_quickstart(name, values):
        visit = open_page(1600, 1000)
        workflow = json.loads((ROOT / "workflows" / "quickstart_digits.json").read_text())
        workflow["extra"] = {"ds": {"scale": 0.5, "offset": [60, 200]}}  # all of it in the window
        visit.evaluate("([workflow, name]) => app.loadGraphData(workflow, true, true, name)", [workflow, name])
        visit.keyboard.press("Escape")  # the templates, which a fresh browser opens
        visit.evaluate(
            """classes => {
                for (const node of app.graph.nodes)
                    for (const [name, value] of Object.entries(classes[node.type] ?? {}))
                        node.widgets.find(widget => widget.name === name).value = value
            }""",
            values,
        )
        return visit

    return visit_quickstart


@pytest.fixture
def jobs(studio):
    """jobs(): the server's list of jobs, newest first."""

    def jobs():
        with urllib.request.urlopen(f"{studio.address}api/jobs", timeout=30) as reply:
            return json.load(reply)["jobs"]

    return jobs


@pytest.fixture
def wait():
    """wait(question): until the answer is truthy; returns it."""

    def wait(question, seconds=60):
        end = time.monotonic() + seconds
        while not (answer := question()):
            assert time.monotonic() < end, "waited in vain"
            time.sleep(0.2)
        return answer

    return wait


@pytest.fixture
def shoot(page, studio):
    """shoot(name): keep a picture of the page."""
    folder = studio.folder / "screenshots"
    folder.mkdir(exist_ok=True)
    return lambda name: page.screenshot(path=folder / f"{name}.png")
