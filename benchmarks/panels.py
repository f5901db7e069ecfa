"""What the studio's panels take with much in them: 10,000 pictures, and a run of 100,000 rows of metrics.

In a real browser, without the canvas around them, so that only our own part is counted. Bounds: a change (a search, an
order, a filter, ten new rows of metrics) is on the page within 100 ms, and a frame of scrolling takes 50 ms (the worst
of twenty are left out). The first row is there within two seconds of a clock, though no picture was ever read before.
For the others it is the time that the page's main thread works, so that it holds on a busy machine too.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from comfyui_rollout import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS
from comfyui_rollout.data.reading.folder import survey
from comfyui_rollout.server import Folders, Studio, application, frontend_folder, listening_socket, serving
from PIL import Image
from report import conclude, table

ROOT = Path(__file__).resolve().parents[1]
PICTURES, ROWS, FRAMES = 10_000, 100_000, 120
UPDATE, FRAME, FIRST_ROW = 100.0, 50.0, 2000.0  # milliseconds
QUIET = ("--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking")

START = """async lib => {
    const load = name => import(`${lib}/${name}.js`)
    const [{ Backend }, { DataTab }, { CurvesPanel }, { Recording }, { Metrics }] = await Promise.all(
        ['server/backend', 'data/data_tab', 'curves/curves_panel', 'trainings/recordings', 'curves/metrics'].map(load))
    document.head.innerHTML = `<link rel="stylesheet" href="${lib}/../rollout.css">`
    document.body.innerHTML = '<div id="place" style="width: 400px; height: 800px"></div>'
    const api = { apiURL: path => path, fetchApi: (path, options) => fetch(path, options) }
    const place = document.getElementById('place')
    const drawn = () => new Promise(done => requestAnimationFrame(() => setTimeout(done)))
    Object.assign(window, { backend: new Backend(api), DataTab, CurvesPanel, Recording, Metrics, place, drawn })
}"""

OPEN_PICTURES = """async name => {
    const settings = () => ({ size: 512, buckets: true })
    window.tab = new DataTab(backend, { tell: (...words) => console.error(...words), use() {}, settings })
    place.replaceChildren(tab.element)
    const begun = performance.now(), isOpen = tab.open(name)
    while (!place.querySelector('.rollout-picture') && performance.now() < begun + 60000)
        await new Promise(requestAnimationFrame)
    const first = performance.now() - begun
    await isOpen
    if (tab.sets.selectedOptions[0]?.textContent !== `${name} (PICTURES)`) throw new Error('some pictures are missing')
    window.firstRow = first
}""".replace("PICTURES", str(PICTURES))
TYPE = "(input, value) => { input.value = value; input.oninput() }"
CHOOSE = "(select, value) => { select.value = value; select.onchange() }"
PICTURE_CHANGES = {
    "search": f"({TYPE})(tab.search, 'number 77')",
    "search is over": f"({TYPE})(tab.search, '')",
    "order": f"({CHOOSE})(tab.sort, 'shortest')",
    "flag": f"({CHOOSE})(tab.flag, 'no caption')",
    "all flags": f"({CHOOSE})(tab.flag, '')",
    "word": f"({TYPE})(tab.bulk.word, 'sks')",
}
SCROLL = "tab.list.element.scrollTop += 700"

READ_CURVES = """async run => {
    window.panel = new CurvesPanel(backend, id => `node ${id}`)
    place.style.width = '1200px'
    place.replaceChildren(panel.element)
    window.recording = Object.assign(new Recording(), { run, total: 200000, running: true })
    recording.metrics.add(await backend.rows(run))
}"""
CURVE_CHANGES = {
    "ten rows": """{
        const last = recording.metrics.lastStep, same = { gradient_norm: 1, learning_rate: 1e-4, drift: 0.1 }
        const row = (_, place) => ({ step: last + 1 + place, loss: Math.random(), ...same })
        recording.metrics.add(Array.from({ length: 10 }, row), last / 10)
        panel.show(recording)
    }""",
    "zoom": "panel.view.set([20000, 30000])",
    "pointer": "panel.view.set([20000, 30000], 25000)",
}


def fill(folder: Path) -> None:
    """A data set of small pictures, two of three with a caption, and a long run."""
    pictures, run = folder / "input" / "datasets" / "many", folder / "output" / "rollout" / "long_00001"
    pictures.mkdir(parents=True)
    run.mkdir(parents=True)
    for number in range(PICTURES):
        colour = (number % 256, number // 256 % 256, 128)
        Image.new("RGB", (64 + number % 64, 64), colour).save(pictures / f"{number}.jpg")
        if number % 3:
            (pictures / f"{number}.txt").write_text(f"a picture, number {number}")
    (run / "run.json").write_text(json.dumps({"status": "finished", "steps": ROWS, "steps_done": ROWS}))
    with (run / "metrics.jsonl").open("w") as file:
        for step in range(ROWS):
            row = {"step": step, "loss": 1 / (step + 1), "gradient_norm": 1.0, "learning_rate": 1e-4, "drift": 0.1}
            file.write(json.dumps(row | ({"machine": {"memory": 2000.0}} if step % 10 == 9 else {})) + "\n")


@contextmanager
def browser_at(folder: Path) -> Iterator[Any]:
    """A page of the studio, without the editor."""
    from playwright.sync_api import sync_playwright

    places = {name: folder / name for name in Folders.__dataclass_fields__}
    studio = Studio(
        NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS,
        Folders(**{**places, "web": ROOT / "web", "frontend": frontend_folder()}), None,
    )  # fmt: skip
    opened = listening_socket("127.0.0.1", 0)
    address = f"http://127.0.0.1:{opened.getsockname()[1]}"
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with opened, serving(application(studio, survey=survey), opened), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(QUIET))
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.goto(f"{address}/rollout/runs")
        page.evaluate(START, f"{address}/extensions/comfyui-rollout/lib")
        page.tools = page.context.new_cdp_session(page)
        page.tools.send("Performance.enable", {"timeDomain": "threadTicks"})
        yield page
        browser.close()


def took(page: Any, action: str, *given: Any) -> float:
    """Milliseconds that the page's main thread worked until an action was drawn; what others do is no part."""

    def worked() -> float:
        metrics = page.tools.send("Performance.getMetrics")["metrics"]
        return next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration")

    before = worked()
    page.evaluate(action if given else f"() => {{ {action} }}", *given)
    page.evaluate("drawn()")
    return 1000 * (worked() - before)


def main(options: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory() as folder:
        fill(Path(folder))
        with browser_at(Path(folder)) as page:
            opening = {"pictures": took(page, OPEN_PICTURES, "many")}
            first_row = page.evaluate("firstRow")
            pictures = {name: took(page, action) for name, action in PICTURE_CHANGES.items()}
            frames = sorted(took(page, SCROLL) for _ in range(FRAMES))
            rows = page.locator(".rollout-picture").count()
            if options.picture:
                page.screenshot(path=options.picture)
            opening["metrics"] = took(page, READ_CURVES, "long_00001")
            opening["curves"] = took(page, "panel.show(recording)")
            curves = {name: took(page, action) for name, action in CURVE_CHANGES.items()}
    table(("change", "ms"), [*opening.items(), *pictures.items(), *curves.items()])
    figures = {
        "pictures_first_row_ms": first_row,
        "pictures_update_ms": max(pictures.values()),
        "curves_update_ms": max(curves.values()),
        "scroll_frame_ms": frames[int(0.95 * FRAMES)],
        "pictures_open_ms": opening["pictures"],
        "rows_in_the_page": rows,
    }
    bounds = {
        "pictures_first_row_ms": FIRST_ROW,
        "pictures_update_ms": UPDATE,
        "curves_update_ms": UPDATE,
        "scroll_frame_ms": FRAME,
        "rows_in_the_page": 40,
    }
    return conclude(figures, bounds, {})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--picture", type=Path, help="keep a picture of the page")
    sys.exit(main(parser.parse_args()))
