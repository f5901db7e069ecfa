"""Folders of images, as people really have them."""

import logging
import re

import pytest
import torch
from comfyui_rollout.data.reading.folder import find_images
from comfyui_rollout.data.reading.images import ImageFolder
from comfyui_rollout.data.reading.pictures import look, read_image
from PIL import Image

# Finding


def test_images_are_found_in_sub_folders_in_order_whatever_their_case(paint, tmp_path):
    """The order of files decides what a seed means: it must not depend on the file system."""
    names = ["b.png", "a/z.JPG", "a/deep/x.webp", "c.gif"]
    for name in names:
        paint(name)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "folder.png").mkdir()
    assert [path.relative_to(tmp_path).as_posix() for path in find_images(tmp_path)] == sorted(names)


def test_a_missing_folder_is_named(tmp_path):
    """One line that says which folder."""
    with pytest.raises(ValueError, match=r"the folder '.*nowhere' does not exist$"):
        find_images(tmp_path / "nowhere")


def test_a_space_too_many_is_pointed_out(paint, tmp_path):
    """Pasted paths often end in a space, which nobody sees."""
    paint("images/a.png")
    with pytest.raises(ValueError, match=r"images ' does not exist \(without the spaces around it, '.*images' does\)"):
        find_images(tmp_path / "images ")


def test_a_folder_whose_name_ends_in_a_space_works(paint, tmp_path):
    """Such folders are rare, but real."""
    paint("images /a.png")
    assert len(find_images(tmp_path / "images ")) == 1


def test_a_folder_without_images_is_an_error(tmp_path):
    """It names the folder and what counts as an image."""
    (tmp_path / "readme.txt").write_text("hello")
    with pytest.raises(
        ValueError,
        match=r"holds no images \(\.apng, \.avif, \.bmp, \.gif, .*\.jfif, \.jp2, \.jpe, \.jpeg, \.jpg, .*\.png",
    ):
        find_images(tmp_path)


def test_linked_folders_are_searched(paint, tmp_path):
    """As people put together a data set from several places; a link that leads back is no trap."""
    paint("images/a.png")
    paint("elsewhere/deep/b.png")
    (tmp_path / "images" / "linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "images", target_is_directory=True)
    (tmp_path / "images" / "self").symlink_to(tmp_path / "images", target_is_directory=True)
    found = [path.relative_to(tmp_path / "images").as_posix() for path in find_images(tmp_path / "images")]
    assert found == ["a.png", "linked/deep/b.png"]


def test_photos_of_phones_are_named(paint, tmp_path, caplog):
    """HEIC is left out, but never in silence."""
    paint("a.png")
    (tmp_path / "b.HEIC").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    with caplog.at_level(logging.INFO):
        dataset = ImageFolder(tmp_path, size=4)
    assert [item.path.name for item in dataset.items] == ["a.png"]
    assert re.search(
        r"left out 1 of 2 images: cannot read .*b\.HEIC: .* \(convert it to JPEG or PNG, or install", caplog.text
    )


@pytest.mark.parametrize("suffix", [".jfif", ".avif"])
def test_other_names_and_formats_of_browsers(paint, tmp_path, suffix):
    """What a browser saves is read where Pillow can."""
    if suffix not in Image.registered_extensions():
        pytest.skip(f"this Pillow was made without {suffix}")
    paint(f"a{suffix}", size=(16, 16))
    assert len(ImageFolder(tmp_path, size=8).items) == 1


# Captions


def test_a_batch_brings_its_captions(paint, tmp_path, generator):
    """Captions stay with their images, whatever the order."""
    for name in ("a", "b"):
        paint(f"{name}.png")
        (tmp_path / f"{name}.txt").write_text(f"caption {name}")
    assert ImageFolder(tmp_path, size=4).batch([1, 0, 1], [generator] * 3).captions == (
        "caption b",
        "caption a",
        "caption b",
    )


def test_half_of_the_images_are_mirrored(tmp_path, strip, generator):
    """flip gives both halves of the strip their turn on the left; off, it never does."""
    strip(("black", "white")).resize((8, 8)).save(tmp_path / "a.png")

    def left_is_dark(flip):
        batch = ImageFolder(tmp_path, size=8, flip=flip).batch([0] * 40, [generator] * 40)
        return (batch.latents[:, 0, 4, 0] < 0).float().mean().item()

    assert left_is_dark(flip=False) == 1
    assert 0.2 < left_is_dark(flip=True) < 0.8


# The data set


def test_sub_folders_are_classes(paint, tmp_path, generator):
    """Labels go by the alphabet of the folders, and deeper folders belong to their first one."""
    for name in ("dog/1.png", "cat/1.png", "cat/old/2.png"):
        paint(name)
    dataset = ImageFolder(tmp_path, size=4)
    assert dataset.info.classes == ("cat", "dog")
    labels = dataset.batch([0, 1, 2], [generator] * 3).conditioning["label"]
    assert labels.tolist() == [0, 0, 1]


def test_without_sub_folders_there_are_no_classes(paint, tmp_path, generator):
    """An unconditional data set tells the network nothing."""
    paint("a.png")
    dataset = ImageFolder(tmp_path, size=4)
    assert dataset.info.classes == ()
    assert dataset.batch([0], [generator]).conditioning == {}


@pytest.mark.parametrize(("stray", "words"), [(["x.png"], "move it into"), (["x.png", "y.png"], "move it and 1 more")])
def test_images_beside_the_class_folders_leave_no_classes(paint, tmp_path, generator, stray, words):
    """Captions do not care; who needs classes is told why there are none: neither leaving them out nor a guess."""
    for name in ("dog/1.png", "cat/1.png", *stray):
        paint(name)
    dataset = ImageFolder(tmp_path, size=4)
    assert (len(dataset.items), dataset.info.classes) == (2 + len(stray), ())
    assert dataset.batch([0], [generator]).conditioning == {}
    reason = rf"x\.png lies beside the class folders \(cat, dog\), .*: {words}"
    assert re.search(reason, dataset.info.without_classes)


def test_repeats_lengthen_the_epoch(paint, tmp_path, generator):
    """A handful of images can be repeated; each comes equally often."""
    for name in "ab":
        paint(f"{name}.png", "white" if name == "a" else "black")
    dataset = ImageFolder(tmp_path, size=4, repeats=3, color="L")
    assert dataset.info.count == 6
    assert dataset.batch(list(range(6)), [generator] * 6).latents.mean((1, 2, 3)).tolist() == [1, -1] * 3


def test_info_says_what_a_model_must_fit(paint, tmp_path):
    """New Model takes its channels and size from here before any image is read for training."""
    paint("a.png")
    info = ImageFolder(tmp_path, size=16, color="L").info
    assert (info.name, info.channels, info.size) == (tmp_path.name, 1, 16)


def test_damaged_images_are_named_and_left_out(paint, tmp_path, noise_picture, cut_short, caplog, generator):
    """Also those that Pillow's own check overlooks: a step an hour later must not fail on them."""
    paint("good.png")
    noise_picture.save(tmp_path / "short.jpg")
    cut_short(tmp_path / "short.jpg")
    (tmp_path / "text.png").write_text("no image at all")
    (tmp_path / "empty.png").touch()
    with caplog.at_level(logging.INFO):
        dataset = ImageFolder(tmp_path, size=4)
    assert dataset.info.count == 1
    assert "left out 3 of 4 images" in caplog.text
    assert all(name in caplog.text for name in ("short.jpg", "text.png", "empty.png"))
    assert dataset.batch([0], [generator]).latents.shape == (1, 3, 4, 4)


def test_nothing_is_said_where_nothing_is_wrong(paint, tmp_path, caplog):
    """No warning for a clean folder."""
    paint("good.png")
    ImageFolder(tmp_path, size=4)
    assert caplog.text == ""


def test_only_damaged_images_are_an_error(tmp_path):
    """A run without any image must not start; the message shows one file and what is wrong with it."""
    for name in ("a.png", "b.jpg"):
        (tmp_path / name).write_text("no image")
    with pytest.raises(ValueError, match=r"none of the 2 images in .* can be read; cannot read .*a\.png"):
        ImageFolder(tmp_path)


def test_a_file_that_vanishes_while_training_is_named(paint, tmp_path, generator):
    """What could not be foreseen still gets a clear line."""
    paint("a.png")
    dataset = ImageFolder(tmp_path, size=4)
    (tmp_path / "a.png").unlink()
    with pytest.raises(ValueError, match=r"cannot read .*a\.png"):
        dataset.batch([0], [generator])


# Buckets


@pytest.fixture
def oblong(paint, tmp_path):
    for name, size in {"a": (256, 128), "b": (128, 256), "c": (130, 130), "d": (300, 150)}.items():
        paint(f"{name}.png", size=size)
    return tmp_path


def test_buckets_keep_images_oblong(oblong, generator):
    """Each image is cut to the bucket of its shape; a batch holds one of them."""
    dataset = ImageFolder(oblong, size=128, buckets=True)
    assert [item.bucket for item in dataset.items] == [(64, 128), (128, 64), (128, 128), (64, 128)]
    assert dataset.batch([0, 3], [generator] * 2).latents.shape == (2, 3, 64, 128)
    assert dataset.info.size is None
    groups = {group.name: (group.items, group.count, group.weight) for group in dataset.info.groups}
    assert groups == {"64x128": ((0, 3), 2, 2), "128x64": ((1,), 1, 1), "128x128": ((2,), 1, 1)}


def test_images_of_one_shape_need_no_groups(paint, tmp_path):
    """The plain order of items then, and one size if they are squares."""
    paint("a.png", size=(200, 200))
    paint("b.png", size=(128, 128))
    info = ImageFolder(tmp_path, size=128, buckets=True).info
    assert (info.groups, info.size) == ((), 128)
    for name in "ab":
        paint(f"{name}.png", size=(200, 100))
    info = ImageFolder(tmp_path, size=128, buckets=True).info
    assert (info.groups, info.size) == ((), None)


def test_the_size_of_a_turned_picture_is_that_which_people_see(tmp_path):
    """A phone's portrait goes to a tall bucket although its pixels lie on their side."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (256, 128)).save(tmp_path / "phone.jpg", exif=exif)
    assert look(tmp_path / "phone.jpg").size == read_image(tmp_path / "phone.jpg").size[::-1] == (256, 128)
    assert ImageFolder(tmp_path, size=128, buckets=True).items[0].bucket == (128, 64)


# Captions and weights


def test_one_caption_for_images_without_a_text(paint, tmp_path):
    """A file beside the image is stronger, even an empty one."""
    for name in "abc":
        paint(f"{name}.png")
    (tmp_path / "a.txt").write_text("a cat")
    (tmp_path / "b.txt").write_text("")
    found = [item.caption for item in ImageFolder(tmp_path, default_caption=" a photo ").items]
    assert found == ["a cat", "", "a photo"]


def test_a_loss_weight_comes_with_every_item(paint, tmp_path, generator):
    """Class images that count less than the photos; 1 is no weight at all."""
    paint("a.png")
    assert ImageFolder(tmp_path, loss_weight=0.5).batch([0, 0], [generator] * 2).weight.tolist() == [0.5, 0.5]
    assert ImageFolder(tmp_path).batch([0], [generator]).weight is None


# What other trainers' folders look like


def test_kohyas_folders_repeat_and_caption(paint, tmp_path, generator):
    """10_sks dog and 2_dog: ten times and twice in an epoch, with the words where there is no caption."""
    for name in ("3_sks dog/a.png", "1_dog/b.png", "1_dog/c.png"):
        paint(name)
    (tmp_path / "1_dog" / "c.txt").write_text("its own")
    dataset = ImageFolder(tmp_path, size=4, repeats=2)
    assert (dataset.info.count, dataset.order) == (10, [0, 1, 2, 2, 2])
    assert [item.caption for item in dataset.items] == ["dog", "its own", "sks dog"]
    assert dataset.batch(list(range(10)), [generator] * 10).captions.count("sks dog") == 6
    assert ImageFolder(tmp_path, size=4, default_caption="mine").items[0].caption == "mine"
    plain = ImageFolder(tmp_path, size=4, kohya_folders=False)
    assert (plain.info.count, [item.caption for item in plain.items]) == (3, ["", "its own", ""])


def test_kohyas_repeats_within_buckets(paint, tmp_path):
    """Each bucket's batches come as often as its images do."""
    paint("3_wide/a.png", size=(256, 128))
    paint("1_square/b.png", size=(128, 128))
    groups = {group.name: group for group in ImageFolder(tmp_path, size=128, buckets=True, repeats=2).info.groups}
    assert (groups["64x128"].items, groups["64x128"].count, groups["64x128"].weight) == ((1, 2, 3), 6, 3)
    assert (groups["128x128"].items, groups["128x128"].count) == ((0,), 2)


def test_a_share_is_kept_back_by_name(tmp_path):
    """Always the same images, nearly the same when some come in; none is both; in their middle, once, not mirrored."""
    for number in range(20):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{number}.png")
    options = {"size": 8, "validation": 0.2, "repeats": 3, "flip": True, "crop": "random"}
    images = ImageFolder(tmp_path, **options)
    kept = {item.path.name for item in images.held_out.items}
    assert (len(kept), images.info.count, images.held_out.info.count) == (4, 48, 4)
    assert not kept & {item.path.name for item in images.items}
    assert (images.held_out.options.flip, images.held_out.options.crop) == (False, "center")
    Image.new("RGB", (8, 8)).save(tmp_path / "more.png")
    assert len(kept - {item.path.name for item in ImageFolder(tmp_path, **options).held_out.items}) <= 1
    assert ImageFolder(tmp_path, size=8, validation=0.001).held_out.info.count == 1
    assert ImageFolder(tmp_path, size=8).held_out is None


def test_every_picture_comes_in_every_resolution(tmp_path, generator):
    """Once an epoch in each, a batch holding one of them, oblong where buckets are; the first is as it is alone."""
    for number in range(3):
        Image.new("RGB", (256, 128), (40 * number, 0, 0)).save(tmp_path / f"{number}.png")
    images = ImageFolder(tmp_path, resolutions=[256, 128, 256], buckets=True)
    assert [(item.path.stem, item.bucket) for item in images.items] == [
        (str(number), size) for number in range(3) for size in ((64, 128), (128, 256))
    ]
    assert ((images.info.count, images.info.size), len(images.pictures)) == ((6, None), 3)
    assert {group.name: list(group.items) for group in images.info.groups} == {
        "64x128": [0, 2, 4],
        "128x256": [1, 3, 5],
    }
    alone = ImageFolder(tmp_path, size=128, buckets=True)
    for number in range(3):
        assert torch.equal(images.batch([2 * number], [generator]).latents, alone.batch([number], [generator]).latents)


def test_one_resolution_is_that_size(tmp_path):
    """The same items, groups and pixels as with size."""
    Image.new("RGB", (90, 60)).save(tmp_path / "a.png")
    one, plain = ImageFolder(tmp_path, resolutions=[128]), ImageFolder(tmp_path, size=128)
    assert (one.items, one.info, one.buckets) == (plain.items, plain.info, plain.buckets)


def test_a_small_picture_that_is_not_enlarged_comes_once(tmp_path):
    """It would be the same in all resolutions that are too large for it."""
    for name, side in (("small", 100), ("large", 300)):
        Image.new("RGB", (side, side)).save(tmp_path / f"{name}.png")
    images = ImageFolder(tmp_path, resolutions=[128, 256], buckets=True, upscale=False)
    sizes = [(item.path.stem, item.bucket[0]) for item in images.items]
    assert sizes == [("large", 128), ("large", 256), ("small", 64)]


def test_a_picture_that_is_kept_back_is_so_in_all_resolutions(tmp_path):
    """The same pictures as with one, and each is validated in all of them."""
    for number in range(10):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{number}.png")
    one = ImageFolder(tmp_path, size=8, validation=0.2)
    several = ImageFolder(tmp_path, resolutions=[8, 16], validation=0.2)
    kept = [{item.path.name for item in images.held_out.items} for images in (one, several)]
    assert kept[0] == kept[1]
    assert not kept[1] & {item.path.name for item in several.items}
    assert [item.bucket for item in several.held_out.items] == [(8, 8), (16, 16)] * 2


def test_a_share_that_leaves_nothing_is_refused(tmp_path):
    """One image cannot be both."""
    Image.new("RGB", (8, 8)).save(tmp_path / "only.png")
    with pytest.raises(ValueError, match=r"validation: 0.5 of 1 image leaves none to train on; lower it"):
        ImageFolder(tmp_path, size=8, validation=0.5)
