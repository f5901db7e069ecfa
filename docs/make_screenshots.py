"""Remakes the pictures of the README: a real server, a real browser, one short run of the quickstart.

python docs/make_screenshots.py     or: make screenshots
The recording with photographs is made by record_photos.py, which this calls.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
QUIET = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)
SETTINGS = {
    "LiteGraph.Canvas.MaximumFps": 8,  # a canvas drawn in software would take the time of the training
    "Comfy.Minimap.Visible": False,
    "Comfy.Graph.CanvasMenu": False,
    "Comfy.Graph.CanvasInfo": False,
    "Comfy.NodeBadge.NodeSourceBadgeMode": "None",
}
SHORT = {"steps": 120, "preview_every": 10, "sample_every": 60}
READY = "window.app && window.app.extensionManager && app.graph && !document.querySelector('#splash-loader')"
WIDTH = 1400  # of the two pictures
EVERY = 0.6  # seconds between the frames of the recording
MOST_FRAMES, FRAME_MS, FILM_WIDTH = 60, 140, 1000
PICTURE_AT = 0.7  # how far into the run the picture of the graph is taken


@contextlib.contextmanager
def server(folder: Path) -> Iterator[str]:
    """A server with folders of its own; yields its address."""
    (folder / "user").mkdir()
    (folder / "user" / "comfy.settings.json").write_text(json.dumps(SETTINGS))
    command = [sys.executable, str(ROOT / "tests" / "browser" / "studio.py"), "serve", "--port", "0"]
    command += ["--device", "cpu", "--output", str(folder / "output")]
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        assert process.stdout is not None
        try:
            address = re.search(r"http://\S+", process.stdout.readline())
            if address is None:
                raise SystemExit((folder / "log").read_text())
            yield address[0]
        finally:
            stop(process)


def stop(process: subprocess.Popen[str]) -> None:
    """End the server, by force if it does not end itself."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        print("the server did not end by itself", flush=True)
        process.kill()


@contextlib.contextmanager
def browser_page() -> Iterator[Page]:
    """A page of a fresh browser without a window."""
    chromium = shutil.which("chromium")
    if chromium is None:
        raise SystemExit("no chromium found: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(QUIET))
        page = browser.new_page(viewport={"width": WIDTH, "height": 920})
        page.set_default_timeout(90_000)
        yield page
        browser.close()


def open_quickstart(page: Page, address: str) -> None:
    """The quickstart on the canvas, shortened to ``SHORT``."""
    page.goto(address)
    page.wait_for_function(READY)
    workflow = json.loads((ROOT / "workflows" / "quickstart_digits.json").read_text())
    page.evaluate("workflow => app.loadGraphData(workflow, true, true, 'quickstart_digits')", workflow)
    page.keyboard.press("Escape")  # the templates, which a fresh browser opens
    page.evaluate(
        """values => {
            const node = app.graph.nodes.find(node => node.type === 'RolloutOptimizerStep')
            for (const [name, value] of Object.entries(values))
                node.widgets.find(widget => widget.name === name).value = value
        }""",
        SHORT,
    )
    page.wait_for_timeout(1000)  # a template moves the canvas to its note when it opens


def look_at(page: Page, corner: tuple[int, int], at: tuple[int, int], scale: float) -> None:
    """Move the canvas until ``corner`` of the graph lies ``at`` that place of the page."""
    page.evaluate(
        """([corner, at, scale]) => {
            const { left, top } = app.canvas.canvas.getBoundingClientRect()
            const { ds } = app.canvas
            ds.scale = scale
            ds.offset[0] = (at[0] - left) / scale - corner[0]
            ds.offset[1] = (at[1] - top) / scale - corner[1]
            app.canvas.setDirty(true, true)
        }""",
        [corner, at, scale],
    )


def picture(page: Page) -> Image.Image:
    """What the page shows now."""
    return Image.open(io.BytesIO(page.screenshot())).convert("RGB")


def record_run(page: Page) -> list[Image.Image]:
    """Run the workflow to its end; returns a picture every ``EVERY`` seconds."""
    finished = page.locator(".rollout-card").get_by_text("finished")
    page.evaluate("app.queuePrompt(0, 1)")
    frames = []
    while not finished.count():
        begun = time.monotonic()
        frames.append(picture(page))
        page.wait_for_timeout(max(0.0, begun + EVERY - time.monotonic()) * 1000)
    page.wait_for_timeout(1500)
    return [*frames, picture(page)]


def show_curves(page: Page) -> None:
    """The training curves in the bottom panel, the runs in the sidebar."""
    page.set_viewport_size({"width": 1900, "height": 1100})
    page.evaluate("app.extensionManager.bottomPanel.toggleBottomPanelTab('rollout-curves')")
    page.evaluate("app.extensionManager.command.execute('Workspace.ToggleSidebarTab.rollout-runs')")
    page.locator(".rollout-run").get_by_text("finished").wait_for()
    page.locator(".rollout-shares span").first.wait_for()
    look_at(page, corner=(1875, 20), at=(450, 100), scale=0.9)
    page.wait_for_timeout(2000)


def scaled(image: Image.Image, width: int) -> Image.Image:
    """The image at this width."""
    return image.resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS)


def save_picture(image: Image.Image, place: Path) -> None:
    """A small PNG, as wide as the other pictures."""
    if image.width != WIDTH:
        image = scaled(image, WIDTH)
    fewer_colours = image.point(lambda level: level & 0xFC)  # cannot be seen, and saves a third of the bytes
    fewer_colours.save(place, optimize=True)
    report(place)


def save_film(frames: list[tuple[Image.Image, int]], place: Path) -> None:
    """An animation of frames, each with its milliseconds."""
    first, *rest = (scaled(frame, FILM_WIDTH) for frame, _ in frames)
    durations = [duration for _, duration in frames]
    first.save(place, save_all=True, append_images=rest, duration=durations, loop=0, quality=55, method=3)
    report(place)


def thinned(frames: list[Image.Image]) -> list[tuple[Image.Image, int]]:
    """At most ``MOST_FRAMES`` of them, in time; it rests on the last one."""
    stride = -(-len(frames) // MOST_FRAMES)
    *kept, last = frames[::-stride][::-1]
    return [*((frame, FRAME_MS) for frame in kept), (last, 1500)]


def report(place: Path) -> None:
    """Say what was written and how large it is."""
    print(f"{place}: {place.stat().st_size / 1000:.0f} kB", flush=True)


def main() -> None:
    """Make all the pictures."""
    from record_photos import record

    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--images", type=Path, default=IMAGES, help="where they go (docs/images)")
    images = options.parse_args().images
    images.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, server(Path(folder)) as address, browser_page() as page:
        open_quickstart(page, address)
        look_at(page, corner=(1135, 20), at=(65, 122), scale=0.9)
        frames = record_run(page)
        save_picture(frames[int(len(frames) * PICTURE_AT)], images / "studio_rollout.png")
        show_curves(page)
        save_picture(picture(page), images / "studio_curves.png")
    save_film(thinned(frames), images / "studio_run.webp")
    record(images)


if __name__ == "__main__":
    main()
