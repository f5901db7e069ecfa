"""The data-set nodes."""

import os
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from comfyui_rollout.nodes import (
    CombineDatasets,
    DiffusionLoss,
    DigitsDataset,
    EmojiDataset,
    FlowMatchingSchedule,
    ImageFolderDataset,
    NewModel,
    NoisyBatch,
)
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


def test_emoji_come_in_batches(wire, pull):
    """Faces in colour with the labels of their groups; New Model reads all that off the wire."""
    stream = wire(EmojiDataset, batch_size=5)
    assert (stream.about.size, stream.about.channels, len(stream.about.classes)) == (24, 3, 12)
    assert pull(stream, 0)[0].latents.shape == (5, 3, 24, 24)
    assert not torch.equal(pull(stream, 0)[0].latents, pull(stream, 1)[0].latents)


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
    before = ImageFolderDataset.IS_CHANGED(folder=str(folder), size=8)
    assert ImageFolderDataset.IS_CHANGED(folder=str(folder), size=8) == before
    os.utime(folder / "cat" / "a.png", ns=(1, 1))
    touched = ImageFolderDataset.IS_CHANGED(folder=str(folder), size=8)
    Image.new("RGB", (8, 8)).save(folder / "c.png")
    added = ImageFolderDataset.IS_CHANGED(folder=str(folder), size=8)
    assert before != touched != added


def test_the_new_widgets_of_the_image_folder_matter(wire, pull, folder, tmp_path):
    """Buckets, masks, a caption for all, and a weight."""
    Image.new("L", (12, 8), 255).save(tmp_path / "a.png")
    masks = tmp_path / "masks" / "cat"
    masks.mkdir(parents=True)
    (tmp_path / "a.png").rename(masks / "a.png")
    options = {"mask_folder": str(tmp_path / "masks"), "default_caption": "a pet", "loss_weight": 0.5}
    batch, _ = pull(wire(ImageFolderDataset, folder=str(folder), batch_size=2, size=128, buckets=True, **options))
    assert batch.latents.shape == (2, 3, 64, 128)
    assert batch.mask.shape == (2, 1, 64, 128)
    assert batch.weight.tolist() == [0.5, 0.5]
    assert batch.captions == ("a pet", "a pet")
    small, _ = pull(wire(ImageFolderDataset, folder=str(folder), batch_size=2, size=128, buckets=True, upscale=False))
    assert small.latents.shape == (2, 3, 64, 64)


def test_the_image_folder_says_what_it_found(build, folder):
    """Before anything is trained."""
    text = build(ImageFolderDataset, folder=str(folder), batch_size=4, repeats=10)["ui"]["text"]
    assert text[0] == "2 images x 10 repeats / batch 4 = 5 steps per epoch"


def test_alpha_is_no_folder(wire, folder):
    """The word stands for the images' own transparency."""
    assert ImageFolderDataset.VALIDATE_INPUTS(folder=str(folder), mask_folder=" alpha ") is True
    Image.new("RGBA", (8, 8)).save(folder / "cat" / "b.png")
    images = wire(ImageFolderDataset, folder=str(folder), mask_folder="alpha").inputs["dataset"]
    assert images.options.mask_folder == "alpha"


def test_a_wrong_mask_folder_is_refused_before_the_run(folder, tmp_path):
    """Masks that are not found would be no masks."""
    message = ImageFolderDataset.VALIDATE_INPUTS(folder=str(folder), mask_folder=str(tmp_path / "nowhere"))
    assert "nowhere' does not exist" in message


def test_changed_captions_and_masks_are_noticed(folder, tmp_path):
    """They are part of the data set as much as the images."""
    masks = tmp_path / "masks" / "cat"
    masks.mkdir(parents=True)
    Image.new("L", (4, 4)).save(masks / "a.png")
    seen = []
    for change in (
        lambda: None,
        lambda: (folder / "cat" / "a.txt").write_text("a cat"),
        lambda: os.utime(folder / "cat" / "a.txt", ns=(1, 1)),
        lambda: os.utime(masks / "a.png", ns=(1, 1)),
    ):
        change()
        seen.append(ImageFolderDataset.IS_CHANGED(folder=str(folder), mask_folder=str(tmp_path / "masks")))
    assert all(before != after for before, after in pairwise(seen))


def test_a_new_model_refuses_buckets(wire, folder):
    """It is made for one size; the line says what to change."""
    Image.new("RGB", (8, 12)).save(folder / "cat" / "tall.png")
    dataset = wire(ImageFolderDataset, folder=str(folder), size=128, buckets=True)
    with pytest.raises(ValueError, match="squares of one size; turn buckets off in Image Folder Dataset"):
        wire(NewModel, dataset=dataset)


# Combine Datasets


@pytest.fixture
def two_folders(wire, tmp_path):
    """Red photos and blue class images, which count half."""
    streams = []
    for name, colour, count, weight in (("photos", "red", 2, 1.0), ("class", "blue", 5, 0.5)):
        for number in range(count):
            (tmp_path / name).mkdir(exist_ok=True)
            Image.new("RGB", (8, 8), colour).save(tmp_path / name / f"{number}.png")
        options = {"batch_size": 2, "size": 8, "default_caption": name, "loss_weight": weight}
        streams.append(wire(ImageFolderDataset, folder=str(tmp_path / name), **options))
    return streams


def test_dreambooth_takes_turns(wire, build, pull, two_folders):
    """Photos, class images, photos ...: each with its caption and weight."""
    photos, images = two_folders
    combined = wire(CombineDatasets, dataset_1=photos, dataset_2=images)
    batches = [pull(combined, index)[0] for index in range(4)]
    assert [batch.captions[0] for batch in batches] == ["photos", "class"] * 2
    assert [batch.weight is None for batch in batches] == [True, False] * 2
    assert batches[1].weight.tolist() == [0.5, 0.5]
    text = build(CombineDatasets, dataset_1=photos, dataset_2=images, weight_1=3.0)["ui"]["text"]
    assert text == [
        "photos: 75% of the batches, an epoch in 2 steps",
        "class: 25% of the batches, an epoch in 12 steps",
    ]


def test_a_weight_of_zero_leaves_a_data_set_out(wire, pull, two_folders):
    """Off, without pulling a wire; all off is an error."""
    photos, images = two_folders
    combined = wire(CombineDatasets, dataset_1=photos, dataset_2=images, weight_2=0.0)
    assert {pull(combined, index)[0].captions[0] for index in range(6)} == {"photos"}
    with pytest.raises(ValueError, match="weight_1: give at least one"):
        wire(CombineDatasets, dataset_1=photos, dataset_2=images, weight_1=0.0, weight_2=0.0)


def test_a_model_can_be_made_for_a_combination(wire, graph, train, two_folders):
    """Size, channels and classes are those of both; training goes on as with one."""
    combined = wire(CombineDatasets, dataset_1=two_folders[0], dataset_2=two_folders[1])
    assert (combined.about.count, combined.about.size, combined.about.channels) == (7, 8, 3)
    model = wire(NewModel, dataset=combined, width=8, depth=1)
    batch = wire(NoisyBatch, dataset=combined, schedule=wire(FlowMatchingSchedule))
    run = train(SimpleNamespace(loss=wire(DiffusionLoss, batch=batch, model=model), model=model))
    assert run.facts["status"] == "finished"


def test_different_batch_sizes_are_refused(wire, two_folders, tmp_path):
    """The line says which there are."""
    other = wire(ImageFolderDataset, folder=str(tmp_path / "class"), batch_size=4, size=8)
    with pytest.raises(ValueError, match="batch_size: the data sets have 2, 4; give all the same"):
        wire(CombineDatasets, dataset_1=two_folders[0], dataset_2=other)


def test_the_folder_at_fault_is_blamed(tmp_path):
    """Of two folders that one check looks at, the one that is wrong is named, and only that one."""
    from comfyui_rollout.nodes import NODE_CLASS_MAPPINGS
    from PIL import Image

    good, empty = tmp_path / "good", tmp_path / "empty"
    good.mkdir()
    empty.mkdir()
    Image.new("RGB", (8, 8)).save(good / "a.png")
    check = NODE_CLASS_MAPPINGS["RolloutImageFolderDataset"].VALIDATE_INPUTS
    assert check(folder="", mask_folder="").startswith("folder: name the folder")
    assert check(folder=str(empty), mask_folder=str(good)).startswith("folder: the folder ")
    assert check(folder=str(good), mask_folder=str(empty)).startswith("mask_folder: the folder ")
    assert check(folder=str(good), mask_folder="alpha") is True
    assert check(folder=None, mask_folder=None) is True


def test_resolutions_come_from_one_line(wire, pull, folder):
    """Sizes with commas or spaces between; the batches of both come."""
    dataset = wire(ImageFolderDataset, folder=str(folder), batch_size=2, resolutions="16, 8")
    sizes = {pull(dataset, index)[0].latents.shape[-1] for index in range(8)}
    assert sizes == {8, 16}


@pytest.mark.parametrize("text", ["512; 768", "big", "500", "0", "8192", "512.5"])
def test_what_is_no_resolution_is_one_line(text, folder):
    said = ImageFolderDataset.VALIDATE_INPUTS(str(folder), resolutions=text)
    assert said.startswith("resolutions: '")
    assert "e.g. 512, 768" in said
