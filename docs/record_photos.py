"""Records how two photographs become a model: photos in, training, scrubbing, gallery, result.

What is trained is a small model from scratch, 32 x 32 pixels, on the two photographs that scikit-learn ships (a temple
in China and a flower), one class each: as much as two processor cores do in a few minutes. It learns these two pictures
by heart; nobody would call that a LoRA, but every step on the screen is the one that a LoRA takes.

python docs/record_photos.py --images DIR
"""

from __future__ import annotations

import argparse
import base64
import io
import tempfile
import zipfile
from pathlib import Path

from make_screenshots import (
    EVERY,
    IMAGES,
    browser_page,
    look_at,
    open_quickstart,
    picture,
    save_film,
    save_picture,
    server,
)
from PIL import Image
from playwright.sync_api import Page

NAME = "studio_photos"
STEPS, LOOKS = 400, 10
MOST_WHILE_TRAINING = 48
SETTINGS = {
    "RolloutImageFolderDataset": {"batch_size": 8, "size": 32, "repeats": 100},
    "RolloutNewModel": {"width": 48},
    "RolloutOptimizerStep": {"run_name": "two_photographs"},
    "RolloutSampleImages": {"steps": 16, "count": 1},
    "RolloutSaveModel": {"name": "two_photographs"},
}
Film = list[tuple[Image.Image, int]]

TAKE_PHOTOS = """async classes => {
    const old = app.graph.nodes.find(node => node.type === 'RolloutDigitsDataset')
    const node = LiteGraph.createNode('RolloutImageFolderDataset')
    node.pos = [...old.pos]
    app.graph.add(node)
    node.setSize([old.size[0], node.size[1]])
    for (const id of [...old.outputs[0].links]) {
        const link = app.graph.links[id] ?? app.graph.links.get(id)
        node.connect(0, app.graph.getNodeById(link.target_id), link.target_slot)
    }
    app.graph.remove(old)
    for (const one of app.graph.nodes)
        for (const [name, value] of Object.entries(classes[one.type] ?? {}))
            one.widgets.find(widget => widget.name === name).value = value
    const ours = performance.getEntriesByType('resource').find(({ name }) => name.endsWith('/lib/graph/room.js'))
    const { makeRoom } = await import(ours.name)
    makeRoom(app.graph)  // the new node is higher than the old one
}"""
DROP = """data => {
    const carried = new DataTransfer()
    carried.items.add(new File([Uint8Array.from(atob(data), char => char.charCodeAt(0))], 'photographs.zip'))
    const at = { clientX: 900, clientY: 500, bubbles: true, cancelable: true, dataTransfer: carried }
    document.querySelector('#graph-canvas').dispatchEvent(new DragEvent('drop', at))
}"""
TRAINING = ".rollout-inspector:not(.rollout-large) .rollout-slider >> nth=1"


def close_toasts(page: Page) -> None:
    """Those that are there; each goes by itself after a while."""
    page.evaluate("document.querySelectorAll('.p-toast-close-button').forEach(button => button.click())")


def photographs() -> bytes:
    """A ZIP with a folder for each: its name is the class."""
    from sklearn.datasets import load_sample_images

    found, data = load_sample_images(), io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, pixels in zip(("temple", "flower"), found.images, strict=True):
            photo = io.BytesIO()
            Image.fromarray(pixels).save(photo, "JPEG", quality=92)
            archive.writestr(f"{name}/{name}.jpg", photo.getvalue())
    return data.getvalue()


def bring_photos(page: Page, steps: int) -> Film:
    """An empty canvas with a graph that waits for pictures; a drop; the pictures in the Data tab."""
    lengths = {"steps": steps, "preview_every": steps // (2 * LOOKS), "sample_every": steps // LOOKS}
    trainer = {"RolloutOptimizerStep": {**SETTINGS["RolloutOptimizerStep"], **lengths}}
    page.evaluate(TAKE_PHOTOS, {**SETTINGS, **trainer})
    look_at(page, corner=(760, 20), at=(360, 110), scale=0.8)
    page.wait_for_timeout(1000)
    film: Film = [(picture(page), 1500)]
    page.evaluate(DROP, base64.b64encode(photographs()).decode())
    page.locator(".rollout-picture").nth(1).wait_for()
    page.wait_for_function(
        "[...document.querySelectorAll('.rollout-picture img:not([hidden])')].some(image => image.naturalWidth)"
    )
    page.wait_for_timeout(2500)
    film.append((picture(page), 2500))
    close_toasts(page)  # they would cover what comes next
    return film


def train(page: Page) -> Film:
    """The canvas while the model learns."""
    page.evaluate("app.extensionManager.command.execute('Workspace.ToggleSidebarTab.rollout-data')")
    look_at(page, corner=(1500, 20), at=(75, 110), scale=0.85)
    page.evaluate("app.queuePrompt(0, 1)")
    ended, frames = page.locator(".rollout-bar").get_by_text("Model saved"), []
    while not ended.count():
        frames.append(picture(page))
        page.wait_for_timeout(EVERY * 1000)
    stride = -(-len(frames) // MOST_WHILE_TRAINING)
    return [*((frame, 160) for frame in frames[::stride]), (picture(page), 1500)]


def scrub(page: Page) -> Film:
    """The slider of the training on the Rollout node, from its begin to its end."""
    slider = page.locator(TRAINING)
    slider.press("Home")
    film: Film = []
    for _ in range(int(slider.get_attribute("max") or 0) + 1):
        page.wait_for_timeout(300)
        film.append((picture(page), 180))
        slider.press("ArrowRight")
    return film


def show_samples(page: Page) -> Film:
    """The gallery: the same noise at every look, walked with the arrow keys."""
    page.locator(".rollout-bar").get_by_role("button", name="Samples").click()
    sample = page.locator("figure.rollout-sample")
    page.locator(".rollout-sample-cell canvas").first.wait_for()
    sample.press("Home")
    film: Film = []
    for _ in range(LOOKS):
        page.wait_for_timeout(400)
        film.append((picture(page), 350))
        sample.press("ArrowRight")
    return [*film, (picture(page), 1500)]


def show_result(page: Page) -> Film:
    """What was learnt, tried in a graph of its own."""
    page.evaluate("app.extensionManager.bottomPanel.toggleBottomPanelTab('rollout-samples')")  # it covers the line
    page.locator(".rollout-bar").get_by_role("button", name="Draw with what was learnt").click()
    page.wait_for_function("app.graph.nodes.some(node => node.type === 'RolloutLoadModel')")
    page.evaluate("app.queuePrompt(0, 1)")
    sampler = "app.graph.nodes.find(node => node.type === 'RolloutSampleImages').id"
    page.wait_for_function(f"(app.nodeOutputs[{sampler}]?.images ?? []).length > 0")
    left, top = page.evaluate(f"[...app.graph.getNodeById({sampler}).pos]")
    look_at(page, corner=(left - 400, top - 60), at=(330, 130), scale=1.0)
    close_toasts(page)
    page.wait_for_timeout(3000)
    return [(picture(page), 3000)]


def record(images: Path, steps: int = STEPS) -> None:
    """Write the recording, and one picture of it at the samples."""
    with tempfile.TemporaryDirectory() as folder, server(Path(folder)) as address, browser_page() as page:
        open_quickstart(page, address)
        film = [*bring_photos(page, steps), *train(page), *scrub(page), *show_samples(page)]
        save_picture(film[-1][0], images / f"{NAME}.png")
        film += show_result(page)
    print(f"{sum(duration for _, duration in film) / 1000:.0f} s, {len(film)} frames")
    save_film(film, images / f"{NAME}.webp")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, default=IMAGES, help="where they go (docs/images)")
    parser.add_argument("--steps", type=int, default=STEPS, help="fewer show nothing, but whether the walk still works")
    options = parser.parse_args()
    record(options.images, options.steps)
