"""Which file is what in a folder of images, and what is left out."""

import unicodedata
from pathlib import Path

import pytest
from comfyui_rollout.data.reading.folder import (
    BROKEN,
    CONDITIONS,
    HIDDEN,
    MASK_ALONE,
    left_out_in_words,
    listing_of,
    look_into,
    repeats_and_words,
)


@pytest.fixture
def touch(tmp_path):
    """``touch("a/b.png", ...)``: files below the test's folder; what is in them does not matter here."""

    def make(*names):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()

    return make


def names(folder, paths):
    return [path.relative_to(folder).as_posix() for path in paths]


def test_hidden_and_system_places_are_left_out(touch, tmp_path):
    """Copies that Jupyter, macOS and storage systems keep: they would be trained, and shift every class."""
    hidden = [".ipynb_checkpoints/1-checkpoint.png", "__MACOSX/._a.png", "cat/@eaDir/a.png", "cat/._a.png"]
    touch("cat/a.png", "cat/Thumbs.db", ".git/config", *hidden)
    listing = listing_of(tmp_path)
    assert names(tmp_path, listing.pictures) == ["cat/a.png"]
    assert names(tmp_path, listing.left_out[HIDDEN]) == [
        ".ipynb_checkpoints", "__MACOSX", "cat/._a.png", "cat/@eaDir",
    ]  # fmt: skip
    assert listing.unread == ()


def test_a_hidden_folder_that_is_asked_for_is_read(touch, tmp_path):
    """Only what lies below the folder is judged, not where the folder itself lies."""
    touch(".data/photos/a.png")
    assert len(listing_of(tmp_path / ".data" / "photos").pictures) == 1


def test_onetrainers_masks_belong_to_their_pictures(touch, tmp_path):
    """They are no pictures; one without its picture, and conditioning pictures, are left out."""
    touch("a.png", "a-masklabel.png", "b.jpg", "b-MASKLABEL.PNG", "c-masklabel.png", "a-condlabel.png")
    listing = listing_of(tmp_path)
    assert names(tmp_path, listing.pictures) == ["a.png", "b.jpg"]
    found = {picture.name: mask.name for picture, mask in listing.masks.items()}
    assert found == {"a.png": "a-masklabel.png", "b.jpg": "b-MASKLABEL.PNG"}
    assert names(tmp_path, listing.left_out[MASK_ALONE]) == ["c-masklabel.png"]
    assert names(tmp_path, listing.left_out[CONDITIONS]) == ["a-condlabel.png"]


def test_captions_whatever_their_case(touch, tmp_path):
    """.txt before .caption before .json, each in capitals too; a JSON file of no picture is no caption."""
    touch(
        "a.png", "a.TXT", "a.caption", "b.png", "b.Caption", "b.json", "c.png", "c.json", "d.png", "e.txt", "all.json"
    )
    listing = listing_of(tmp_path)
    found = {picture.stem: text.name for picture, text in listing.captions.items()}
    assert found == {"a": "a.TXT", "b": "b.Caption", "c": "c.json"}
    assert names(tmp_path, listing.stray) == ["e.txt"]
    assert names(tmp_path, listing.unread) == ["all.json"]


def test_accents_may_be_written_in_two_ways(touch, tmp_path):
    """A caption unpacked from a Mac's archive has its accents apart."""
    touch(unicodedata.normalize("NFC", "café.png"), unicodedata.normalize("NFD", "café.txt"))
    assert len(listing_of(tmp_path).captions) == 1


@pytest.mark.parametrize("suffix", ["jp2", "tga", "ppm", "apng", "qoi", "JPE", "pgm"])
def test_further_kinds_are_pictures(touch, tmp_path, suffix):
    """What Pillow reads by itself."""
    touch(f"a.{suffix}")
    assert len(listing_of(tmp_path).pictures) == 1


def test_other_kinds_get_a_line_each(touch, tmp_path):
    """With what to do where it is a picture."""
    touch("a.png", "b.psd", "c.psd", "d.npz", "LICENSE")
    assert left_out_in_words(listing_of(tmp_path)) == [
        "not read: 1 file .npz, e.g. d.npz",
        "not read: 2 files .psd (convert to JPEG or PNG), e.g. b.psd",
        "not read: 1 file without a suffix, e.g. LICENSE",
    ]


def test_a_link_to_nothing_is_left_out(touch, tmp_path):
    """As datasets on another disk leave behind."""
    touch("a.png")
    (tmp_path / "b.png").symlink_to(tmp_path / "gone.png")
    assert names(tmp_path, listing_of(tmp_path).left_out[BROKEN]) == ["b.png"]


def test_where_all_is_left_out_the_message_says_why(touch, tmp_path):
    """ "No images" alone would be a riddle."""
    touch(".hidden/a.png", "b.psd")
    with pytest.raises(ValueError, match=r"holds no images .*left out: hidden or system: \.hidden; not read: 1 file"):
        listing_of(tmp_path)


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("10_sks dog", (10, "sks dog")),
        ("1_dog", (1, "dog")),
        ("003_a_b", (3, "a_b")),
        ("0_zero", (1, "")),
        ("2024_holidays", (1, "")),
        ("10_", (1, "")),
        ("10 dogs", (1, "")),
        ("dog", (1, "")),
    ],
)
def test_kohyas_folder_names(name, read):
    """N_words, but no year and no zero."""
    assert repeats_and_words(name) == read


def test_what_is_closed_is_left_out_and_named(touch, tmp_path, monkeypatch):
    """A folder that may be listed and not entered, as a link into one that is closed: the others are trained."""
    touch("a.png")
    touch("closed/b.png")
    is_dir = Path.is_dir

    def refused(path):
        if path.parent.name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return is_dir(path)

    monkeypatch.setattr(Path, "is_dir", refused)
    found = look_into(tmp_path)
    assert [path.name for path in found.pictures] == ["a.png"]
    assert left_out_in_words(found) == ["may not be read: closed/b.png"]
