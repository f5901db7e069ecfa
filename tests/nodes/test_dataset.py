"""The data-set nodes."""

import pytest
import torch
from comfyui_rollout.nodes import DigitsDataset, ImageFolderDataset
from PIL import Image


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "images"
    for name, colour in (("cat/a.png", "red"), ("dog/b.png", "blue")):
        (place / name).parent.mkdir(parents=True)
        Image.new("RGB", (12, 8), colour).save(place / name)
    return place


def test_digits_come_in_batches(wire, pull):
    """Images in -1..1 with their labels, a new batch each step."""
    stream = wire(DigitsDataset, batch_size=6)
    first, _ = pull(stream, 0)
    second, _ = pull(stream, 1)
    assert first.latents.shape == (6, 1, 8, 8)
    assert first.conditioning["label"].shape == (6,)
    assert not torch.equal(first.latents, second.latents)
    assert torch.equal(pull(stream, 0)[0].latents, first.latents)
    assert not torch.equal(pull(stream, 0, seed=1)[0].latents, first.latents)


def test_a_data_set_says_what_it_holds(wire):
    """New Model reads size, channels and classes off the wire, before anything runs."""
    about = wire(DigitsDataset, size=16).about
    assert (about.size, about.channels, len(about.classes)) == (16, 1, 10)


def test_all_widgets_of_the_image_folder_matter(wire, pull, folder):
    """Each setting arrives at the images."""
    stream = wire(ImageFolderDataset, folder=str(folder), batch_size=4, size=16, repeats=3, color="L")
    assert (stream.about.count, stream.about.size, stream.about.channels) == (6, 16, 1)
    assert stream.about.classes == ("cat", "dog")
    assert pull(stream)[0].latents.shape == (4, 1, 16, 16)


def test_the_home_folder_may_be_written_short(wire, folder, monkeypatch):
    """~ works as in a shell."""
    monkeypatch.setenv("HOME", str(folder.parent))
    monkeypatch.setenv("USERPROFILE", str(folder.parent))
    assert ImageFolderDataset.VALIDATE_INPUTS(folder="~/images") is True
    assert wire(ImageFolderDataset, folder="~/images", size=8).about.count == 2


@pytest.mark.parametrize(
    ("name", "words"),
    [("", "name the folder"), ("  ", "name the folder"), ("{here}/nowhere", "nowhere' does not exist")],
)
def test_a_wrong_folder_is_refused_before_the_run(wire, tmp_path, name, words):
    """An empty line most of all: it must not mean the folder that the program was started in."""
    text = name.format(here=tmp_path)
    message = ImageFolderDataset.VALIDATE_INPUTS(folder=text)
    assert words in message
    assert "\n" not in message
    with pytest.raises(ValueError, match=words):
        wire(ImageFolderDataset, folder=text)


def test_an_empty_folder_is_refused_before_the_run(tmp_path):
    """It is named."""
    assert "holds no images" in ImageFolderDataset.VALIDATE_INPUTS(folder=str(tmp_path))


def test_a_wired_folder_is_not_known_yet():
    """ComfyUI passes None for an input that comes over a wire: it is checked when it arrives."""
    assert ImageFolderDataset.VALIDATE_INPUTS(folder=None) is True


def test_new_and_changed_files_are_noticed(folder):
    """A cached data set is read again when a file was added or replaced, and only then."""
    import os

    before = ImageFolderDataset.IS_CHANGED(folder=str(folder), size=8)
    assert ImageFolderDataset.IS_CHANGED(folder=str(folder), size=8) == before
    os.utime(folder / "cat" / "a.png", ns=(1, 1))
    touched = ImageFolderDataset.IS_CHANGED(folder=str(folder), size=8)
    Image.new("RGB", (8, 8)).save(folder / "c.png")
    added = ImageFolderDataset.IS_CHANGED(folder=str(folder), size=8)
    assert before != touched != added
