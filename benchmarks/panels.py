"""What the studio's panels take with much in them: 10,000 pictures, and a run of 100,000 rows of metrics.

In a real browser, without the canvas around them, so that only our own part is counted. Bounds: a change (a search, an
order, a filter, ten new rows of metrics) is on the page within 100 ms, and a frame of scrolling takes 50 ms (the worst
of twenty is left out). Opening is told too; it is mostly the server's look at every picture.
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

from comfyui_rollout import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS
from comfyui_rollout.data.reading.folder import survey
from comfyui_rollout.server import Folders, Studio, application, frontend_folder, listening_socket, serving
from PIL import Image
from report import conclude, table

ROOT = Path(__file__).resolve().parents[1]
PICTURES, ROWS = 10_000, 100_000
UPDATE, FRAME = 100.0, 50.0  # milliseconds
QUIET = ("--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking")

START = """async lib => {
    const load = name => import(`${lib}/${name}.js`)
    const [{ Backend }, { DataTab }, { CurvesPanel }, { Recording }, { Metrics }] = await Promise.all(
        ['backend', 'data_tab', 'curves_panel', 'recordings', 'metrics'].map(load))
    document.head.innerHTML = `<link rel="stylesheet" href="${lib}/../rollout.css">`
    document.body.innerHTML = '<div id="place" style="width: 400px; height: 800px"></div>'
    const api = { apiURL: path => path, fetchApi: (path, options) => fetch(path, options) }
    const place = document.getElementById('place')
    const drawn = () => new Promise(done => requestAnimationFrame(() => setTimeout(done)))
    const timed = async action => {
        await drawn()
        const begun = performance.now()
        await action()
        place.offsetHeight // laid out
        const worked = performance.now()
        await drawn()
        return Math.max(worked - begun, performance.now() - begun - 1000 / 60)
    }
    Object.assign(window, { backend: new Backend(api), DataTab, CurvesPanel, Recording, Metrics, place, timed, drawn })
}"""

PICTURES_SHOWN = """async name => {
    const settings = () => ({ size: 512, buckets: true })
    const tab = new DataTab(backend, { tell: (...words) => console.error(...words), use() {}, settings })
    place.replaceChildren(tab.element)
    const told = { open: await timed(() => tab.open(name)) }
    if (!place.querySelector('.rollout-picture')) throw new Error('no picture is shown')
    const type = (input, value) => timed(() => { input.value = value; input.oninput() })
    told.search = await type(tab.search, 'number 77')
    told.searched = await type(tab.search, '')
    const choose = (select, value) => timed(() => { select.value = value; select.onchange() })
    told.order = await choose(tab.sort, 'shortest')
    told.flag = await choose(tab.flag, 'no caption')
    told.all = await choose(tab.flag, '')
    told.word = await timed(() => { tab.word.value = 'sks'; tab.word.oninput() })
    const frames = []
    for (let step = 0; step < 120; step++)
        frames.push(await timed(() => { tab.list.element.scrollTop += 700 }))
    return { told, frames, rows: place.querySelectorAll('.rollout-picture').length }
}"""

CURVES_SHOWN = """async run => {
    const panel = new CurvesPanel(backend, id => `node ${id}`)
    place.style.width = '1200px'
    place.replaceChildren(panel.element)
    const recording = Object.assign(new Recording(), { run, total: 200000, running: true })
    const told = { read: await timed(async () => recording.metrics.add(await backend.rows(run))) }
    told.open = await timed(() => panel.show(recording))
    const last = recording.metrics.lastStep
    const same = { gradient_norm: 1, learning_rate: 1e-4, drift: 0.1 }
    const row = number => ({ step: last + number, loss: Math.random(), ...same })
    for (let time = 0; time < 5; time++)
        told[`rows ${time}`] = await timed(() => {
            recording.metrics.add(Array.from({ length: 10 }, (_, place) => row(10 * time + place + 1)), time)
            panel.show(recording)
        })
    told.zoom = await timed(() => panel.view.set([20000, 30000]))
    return { told }
}"""


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
def browser_at(folder: Path) -> Iterator[object]:
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
        yield page
        browser.close()


def main(options: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory() as folder:
        fill(Path(folder))
        with browser_at(Path(folder)) as page:
            pictures = page.evaluate(PICTURES_SHOWN, "many")  # type: ignore[attr-defined]
            curves = page.evaluate(CURVES_SHOWN, "long_00001")  # type: ignore[attr-defined]
            if options.picture:
                page.screenshot(path=options.picture)  # type: ignore[attr-defined]
    opening = {f"{name} {key}": part["told"].pop(key) for name, part in (("pictures", pictures), ("curves", curves))
               for key in ("open", "read") if key in part["told"]}  # fmt: skip
    told = {f"{name} {key}": value for name, part in (("pictures", pictures), ("curves", curves))
            for key, value in part["told"].items()}  # fmt: skip
    table(("change", "ms"), [*opening.items(), *told.items()])
    frames = sorted(pictures["frames"])
    figures = {
        "pictures_update_ms": max(value for name, value in told.items() if name.startswith("pictures")),
        "curves_update_ms": max(value for name, value in told.items() if name.startswith("curves")),
        "scroll_frame_ms": frames[int(0.95 * len(frames))],
        "pictures_open_ms": opening["pictures open"],
        "rows_in_the_page": pictures["rows"],
    }
    bounds = {
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
