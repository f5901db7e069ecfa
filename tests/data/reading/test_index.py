"""What is known of a large folder's files is kept between starts, and never outlives a change."""

import os
import time

import pytest
from comfyui_rollout.data.reading import index, pictures
from comfyui_rollout.data.reading.images import ImageFolder
from PIL import Image

LONG_AGO = 1_600_000_000


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Six pictures, 8 x 4, and an index however few they are."""
    monkeypatch.setattr(index, "LEAST", 1)
    monkeypatch.setattr(index, "TICK", 0)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(6):
        Image.new("RGB", (8, 4), (40 * number, 0, 0)).save(pictures / f"{number}.png")
        os.utime(pictures / f"{number}.png", (LONG_AGO, LONG_AGO))
    time.sleep(0.02)  # so that no time of theirs is that of the look
    return pictures


@pytest.fixture
def start(folder, tmp_path, monkeypatch):
    """``start()`` reads the folder as a new program would: ``(sizes by name, names that were opened)``."""

    def read(**options):
        seen, look = [], pictures.look

        def counted(path):
            seen.append(path.name)
            return look(path)

        with monkeypatch.context() as patched:
            patched.setattr(pictures, "look", counted)
            found = ImageFolder(folder, size=8, indexes=tmp_path / "index", **options)
        return {item.path.name: item.size for item in found.items}, sorted(seen)

    return read


def kept_in(tmp_path):
    (path,) = (tmp_path / "index").glob("*-looks.json")
    return path


NAMES = [f"{number}.png" for number in range(6)]


def test_the_second_start_opens_nothing(start):
    """And knows the same."""
    first = start()
    assert first == (dict.fromkeys(NAMES, (4, 8)), NAMES)
    assert start() == (first[0], [])


def test_what_was_edited_added_or_removed_is_seen(start, folder):
    """A picture with other pixels, another size under the old time, a new one, one that is gone, one renamed."""
    start()
    Image.new("RGB", (5, 5)).save(folder / "0.png")
    was = folder / "1.png"
    data = was.read_bytes()
    Image.new("RGB", (8, 8)).resize((3, 9)).save(was)
    was.write_bytes(was.read_bytes().ljust(len(data), b"\0"))  # the same length ...
    os.utime(was, (LONG_AGO, LONG_AGO))  # ... and the same time, as tools leave it that edit metadata
    Image.new("RGB", (7, 7)).save(folder / "new.png")
    (folder / "2.png").unlink()
    (folder / "3.png").rename(folder / "moved.png")
    sizes, seen = start()
    assert sizes == {
        "0.png": (5, 5),
        "1.png": (9, 3),
        "4.png": (4, 8),
        "5.png": (4, 8),
        "moved.png": (4, 8),
        "new.png": (7, 7),
    }
    assert seen == ["0.png", "1.png", "moved.png", "new.png"]
    assert start()[1] == []


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "\0" * len(text),
        lambda text: text.replace("[4,8]", "[4,9]", 1),
        lambda text: text.replace("looks by Pillow", "looks by another"),
        lambda text: "{}",
        lambda text: "\n\n[]",
    ],
    ids=["cut short", "empty", "zeros", "a number changed", "by another Pillow", "JSON of somebody", "no object"],
)
def test_a_torn_or_foreign_index_is_none(start, tmp_path, spoil):
    """All is looked at again, and kept again."""
    first = start()
    path = kept_in(tmp_path)
    path.write_text(spoil(path.read_text()))
    assert start() == first
    assert start() == (first[0], [])


def test_the_index_of_another_folder_is_never_read(start, folder, tmp_path):
    """Each folder has its own."""
    start()
    other = tmp_path / "other"
    folder.rename(other)
    found = ImageFolder(other, size=8, indexes=tmp_path / "index")
    assert len(found.items) == 6
    assert len(list((tmp_path / "index").glob("*-looks.json"))) == 2


def test_what_could_not_be_read_is_looked_at_again(start, folder):
    """A network drive has it back the next time."""
    data = (folder / "0.png").read_bytes()
    (folder / "0.png").write_bytes(data[:20])
    time.sleep(0.02)
    assert "0.png" not in start()[0]
    assert start()[1] == ["0.png"]


def test_a_file_of_just_now_is_looked_at_again(start, folder, monkeypatch):
    """Its next change could have the same size and time, on a file system that counts in seconds."""
    monkeypatch.setattr(index, "TICK", 2_000_000_000)
    start()
    assert start()[1] == NAMES


def test_few_files_have_no_index(start, tmp_path, monkeypatch):
    """Nothing is written for a folder that is read in no time."""
    monkeypatch.setattr(index, "LEAST", 7)
    start()
    assert not (tmp_path / "index").exists()


def test_where_no_index_can_be_written_all_goes_on(start, tmp_path):
    """A read-only or a full disk costs the time, not the run."""
    (tmp_path / "index").write_text("a file where the folder should be")
    assert start() == start()


def test_masks_are_kept_too(start, folder, tmp_path):
    """Those of a folder of their own."""
    masks = tmp_path / "masks"
    masks.mkdir()
    for name in NAMES:
        Image.new("L", (8, 4)).save(masks / name)
    time.sleep(0.02)
    assert len(start(mask_folder=masks)[1]) == 12
    assert start(mask_folder=masks)[1] == []
    Image.new("L", (8, 4), 255).save(masks / "3.png")
    assert start(mask_folder=masks)[1] == ["3.png"]
