"""A person with a few photos: drops them, sees them, writes captions, and trains on them, without typing a path."""

import base64
import io
import json
import re
import urllib.request
import zipfile
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
FOLDER = "app.graph.nodes.find(node => node.type === 'RolloutImageFolderDataset')"
DROP = """([files, selector]) => {
    const carried = new DataTransfer()
    for (const [name, data] of files)
        carried.items.add(new File([Uint8Array.from(atob(data), char => char.charCodeAt(0))], name))
    const at = { clientX: 700, clientY: 700, bubbles: true, cancelable: true, dataTransfer: carried }
    document.querySelector(selector).dispatchEvent(new DragEvent('drop', at))
}"""


def photo(colour, size=(400, 300), kind="JPEG"):
    data = io.BytesIO()
    Image.new("RGB", size, colour).save(data, kind)
    return data.getvalue()


def drop(page, files, selector="#graph-canvas"):
    page.evaluate(DROP, [[[name, base64.b64encode(data).decode()] for name, data in files.items()], selector])


@pytest.fixture(scope="module")
def visit(open_page):
    """A LoRA template on the canvas; the sidebar is closed."""
    visit = open_page()
    workflow = json.loads((ROOT / "workflows" / "lora_sd15.json").read_text())
    visit.evaluate("workflow => app.loadGraphData(workflow, true, true, 'photos')", workflow)
    visit.keyboard.press("Escape")
    return visit


@pytest.fixture(scope="module")
def sets(studio):
    return studio.output.parent / "input" / "datasets"


def rows(visit):
    return visit.locator(".rollout-picture")


def test_dropped_photos_become_the_data_set_of_the_node(visit, sets, keep):
    """Several at once: a data set is made, the node trains on it, and the tab shows every picture."""
    drop(visit, {"b.jpg": photo("red"), "a.jpg": photo("blue", (900, 300)), "b.txt": b"a red wall", "notes.pdf": b"x"})
    rows(visit).nth(1).wait_for()
    visit.wait_for_function(f"{FOLDER}.widgets.find(widget => widget.name === 'folder').value.includes('photos 20')")
    (folder,) = sets.iterdir()
    assert {path.name for path in folder.iterdir()} == {"a.jpg", "b.jpg", "b.txt"}
    assert visit.evaluate(f"{FOLDER}.widgets.find(widget => widget.name === 'folder').value") == str(folder)
    visit.locator(".rollout-status-line").get_by_text("files added: 3").wait_for()
    assert rows(visit).nth(0).inner_text().startswith("a.jpg · 900")
    assert "very oblong" in rows(visit).nth(0).inner_text()
    cut = f"{FOLDER}.widgets.find(widget => widget.name === 'size')"
    for size, becomes in ((256, "256, 128"), (512, "640, 320")):  # how the node cuts now is what is drawn
        visit.evaluate(f"size => {{ {cut}.value = size; {cut}.callback(size) }}", size)
        rows(visit).nth(0).get_by_text(re.compile("→ " + becomes.replace(", ", "."))).wait_for()
    visit.wait_for_function(
        "[...document.querySelectorAll('.rollout-picture img:not([hidden])')].every(image => image.naturalWidth)"
    )
    visit.wait_for_timeout(500)
    keep(visit, "photos")


def test_a_caption_is_written_in_place_and_taken_back(visit, sets):
    """Leaving the field saves it; Undo brings the old one back, also as a file."""
    (folder,) = sets.iterdir()
    field = rows(visit).nth(0).locator("textarea")
    field.fill("a blue wall")
    field.blur()
    visit.wait_for_function("!document.querySelector('.rollout-picture').innerText.includes('no caption')")
    assert (folder / "a.txt").read_text() == "a blue wall"
    visit.get_by_role("button", name="Undo the last change of captions").click()
    visit.wait_for_function("document.querySelector('.rollout-picture textarea').value === ''")
    assert not (folder / "a.txt").exists()


def test_many_captions_change_at_once(visit, sets, keep):
    """A word is put in front of all; the button says of how many before it is pressed."""
    (folder,) = sets.iterdir()
    visit.get_by_role("textbox", name="Word", exact=True).fill("sks")
    apply = visit.get_by_role("button", name="Change all shown captions")
    assert apply.inner_text().strip() == "Change 2"
    apply.click()
    visit.wait_for_function(
        "[...document.querySelectorAll('.rollout-picture textarea')].every(field => field.value.startsWith('sks'))"
    )
    assert [(folder / name).read_text() for name in ("a.txt", "b.txt")] == ["sks", "sks, a red wall"]
    keep(visit, "captions")


def test_two_browsers_editing_one_caption_lose_nothing(visit, sets):
    """The second one sees what the first wrote, and decides."""
    (folder,) = sets.iterdir()
    (folder / "b.txt").write_text("written elsewhere")
    field = rows(visit).nth(1).locator("textarea")
    field.fill("mine")
    field.blur()
    conflict = rows(visit).nth(1).locator(".rollout-conflict")
    conflict.get_by_text("Changed elsewhere: written elsewhere").wait_for()
    assert (folder / "b.txt").read_text() == "written elsewhere"
    conflict.get_by_role("button", name="Keep mine").click()
    conflict.wait_for(state="hidden")
    assert (folder / "b.txt").read_text() == "mine"


def test_dropped_again_they_are_no_second_data_set(visit, sets):
    """A drop that was cut off is dropped once more: what is there already stays, and the rest is added."""
    (folder,) = sets.iterdir()
    files = {"b.jpg": photo("red"), "a.jpg": photo("blue", (900, 300)), "c.jpg": photo("green")}
    drop(visit, files, ".rollout-data")
    visit.locator(".rollout-status-line").get_by_text("files added: 1 · already there: 2").wait_for()
    assert [path.name for path in sets.iterdir()] == [folder.name]
    (folder / "c.jpg").unlink()


def test_a_file_that_is_no_picture_is_no_broken_picture(visit, sets, keep):
    """It is named, with what is wrong with it, and the server is not asked for what it cannot draw."""
    (folder,) = sets.iterdir()
    (folder / "c.jpg").write_text("no picture")
    for _ in range(2):  # closed and opened again, the tab reads the list anew
        visit.evaluate("app.extensionManager.command.execute('Workspace.ToggleSidebarTab.rollout-data')")
    row = rows(visit).filter(has_text="c.jpg · 10 B")
    row.get_by_text("cannot be read").wait_for()
    keep(visit, "no_picture")
    assert row.locator(".rollout-picture-image > img:not([hidden])").count() == 0
    (folder / "c.jpg").unlink()


def test_an_archive_dropped_on_the_tab_is_a_second_data_set(visit, sets, keep):
    """With its name; what does not belong is named; the picker of the node offers both."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("cats/1.jpg", photo("green"))
        archive.writestr("cats/run.exe", "MZ")
    drop(visit, {"my cats.zip": data.getvalue()}, ".rollout-data")
    visit.locator(".rollout-status-line").get_by_text("1 left out: run.exe").wait_for()
    assert [path.name for path in (sets / "my cats").iterdir()] == ["1.jpg"]
    choice = visit.locator(".rollout-choice select")
    choice.focus()
    visit.wait_for_function("document.querySelector('.rollout-choice select').options.length === 3")
    choice.select_option(label="my cats")
    assert visit.evaluate(f"{FOLDER}.widgets.find(widget => widget.name === 'folder').value") == str(sets / "my cats")


def test_ten_thousand_pictures_scroll(visit, sets, studio, keep):
    """Only rows in sight exist, and going to the end shows the end."""
    folder = sets / "many"
    folder.mkdir()
    data = photo("red", (64, 64))
    for number in range(10_000):
        (folder / f"{number}.jpg").write_bytes(data)
    visit.locator(".rollout-data").get_by_role("combobox", name="Which data set").focus()
    with urllib.request.urlopen(f"{studio.address}api/rollout/datasets/many", timeout=120) as reply:
        assert len(json.load(reply)["entries"]) == 10_000
    drop(visit, {"one more.zip": empty_archive()}, ".rollout-data")  # the tab reads the list of data sets anew
    visit.wait_for_function(
        "[...document.querySelector('[title=\"Which data set\"]').options].some(o => o.value === 'many')"
    )
    visit.locator(".rollout-data").get_by_role("combobox", name="Which data set").select_option("many")
    rows(visit).get_by_text("0.jpg").first.wait_for()  # the first rows come before the others are read
    visit.wait_for_function("document.querySelector('.rollout-virtual').scrollHeight > 100_000")
    took = visit.evaluate(
        """() => { const list = document.querySelector('.rollout-virtual'), begun = performance.now()
            list.scrollTop = list.scrollHeight
            return new Promise(done => requestAnimationFrame(() => requestAnimationFrame(
                () => done(performance.now() - begun)))) }"""
    )
    rows(visit).get_by_text("9999.jpg").wait_for()
    assert rows(visit).count() < 40
    keep(visit, "many")
    print(f"scrolled to the end of 10,000 in {took:.0f} ms")


def empty_archive():
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("x/1.jpg", photo("white"))
    return data.getvalue()
