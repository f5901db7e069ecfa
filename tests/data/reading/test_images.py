"""Folders of images, as people really have them."""

import logging
import re
import struct
import zlib

import numpy as np
import pytest
import torch
from comfyui_rollout.data.data import ItemGenerators
from comfyui_rollout.data.reading.folder import find_images
from comfyui_rollout.data.reading.images import ImageFolder, corner_of, fit, look, place_of, read_image, to_latents
from PIL import Image


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def paint(tmp_path):
    """``paint("a/cat.png", "red", size=(4, 4))`` saves a picture of one colour below the test's folder."""

    def save(name, colour="red", size=(4, 4), mode="RGB", **options):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new(mode, size, colour).save(path, **options)
        return path

    return save


@pytest.fixture
def noise_picture():
    """A picture of noise (64 x 64), which no file format can make small."""
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def cut_short(path, share=0.5):
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    return path


def pixel(picture, place=(0, 0)):
    return picture.getpixel(place)


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


# Reading


def test_pictures_are_turned_upright(tmp_path):
    """A phone's portrait (EXIF orientation 6) is trained as people see it: turned right by a quarter."""
    lying = Image.new("RGB", (16, 8), "white")
    lying.paste("black", (0, 0, 8, 8))  # dark at the left, which is the top when held upright
    exif = Image.Exif()
    exif[0x0112] = 6
    lying.save(tmp_path / "phone.jpg", exif=exif, quality=100, subsampling=0)
    upright = read_image(tmp_path / "phone.jpg", "L")
    assert upright.size == (8, 16)
    assert pixel(upright, (4, 2)) < 30
    assert pixel(upright, (4, 13)) > 225


@pytest.mark.parametrize(("background", "expected"), [("white", (255, 127, 127)), ("black", (128, 0, 0))])
def test_the_background_shows_through_transparency(paint, background, expected):
    """Half-transparent red becomes pink on white and dark on black, not an arbitrary colour."""
    path = paint("a.png", (255, 0, 0, 128), mode="RGBA")
    assert pixel(read_image(path, background=background)) == pytest.approx(expected, abs=1)


def test_a_transparent_palette_shows_the_background(tmp_path):
    """Palette pictures with a transparent entry (GIF, small PNG) are no exception."""
    picture = Image.new("P", (2, 1))
    picture.putpalette([255, 0, 0, 0, 0, 255])
    picture.putpixel((1, 0), 1)
    picture.save(tmp_path / "a.png", transparency=0)
    read = read_image(tmp_path / "a.png")
    assert [pixel(read, (0, 0)), pixel(read, (1, 0))] == [(255, 255, 255), (0, 0, 255)]


@pytest.mark.parametrize(("values", "expected"), [([0, 0.5, 1], [0, 128, 255]), ([0, 128, 300], [0, 128, 255])])
def test_floats_are_scaled(tmp_path, values, expected):
    """0..1, as most programs write them, would be black; what goes beyond is taken for 0..255."""
    Image.fromarray(np.array([values], dtype=np.float32)).save(tmp_path / "a.tiff")
    read = read_image(tmp_path / "a.tiff", "L")
    assert [pixel(read, (x, 0)) for x in range(3)] == expected


def test_sixteen_bits_are_scaled_not_cut_off(tmp_path):
    """Scans and renders have 0..65535; Pillow alone would turn all but the darkest of it white."""
    pixels = np.array([[0, 32896, 65535]], dtype=np.uint16)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    read = read_image(tmp_path / "a.png")
    assert [pixel(read, (x, 0)) for x in range(3)] == [(0,) * 3, (128,) * 3, (255,) * 3]
    assert [pixel(read_image(tmp_path / "a.png", "L"), (x, 0)) for x in range(3)] == [0, 128, 255]


@pytest.mark.parametrize("mode", ["L", "1", "LA", "CMYK", "P"])
def test_every_kind_of_picture_becomes_three_channels(tmp_path, mode):
    """Grey, black-and-white, print colours and palettes can lie side by side in one folder."""
    name = "a.tif" if mode == "CMYK" else "a.png"
    Image.new("RGB", (4, 4), "white").convert("L" if mode == "LA" else mode).convert(mode).save(tmp_path / name)
    read = read_image(tmp_path / name)
    assert (read.mode, pixel(read)) == ("RGB", (255, 255, 255))


def test_grey_on_request(paint):
    """color L gives one channel."""
    assert to_latents(read_image(paint("a.png", "white"), "L")).shape == (1, 4, 4)


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "webp", "bmp", "tif"])
def test_a_file_cut_short_is_named(tmp_path, noise_picture, suffix):
    """An unfinished download is found whatever its format, by the quick look as well as by the full one."""
    path = tmp_path / f"cat.{suffix}"
    noise_picture.save(path)
    cut_short(path)
    message = rf"cannot read .*cat\.{suffix}: \w+"
    assert re.match(message, look(path).damage)
    with pytest.raises(ValueError, match=message):
        read_image(path)


# From picture to latents


def test_latents_span_minus_one_to_one(paint):
    """Black is -1, white 1, channels first."""
    assert to_latents(read_image(paint("a.png", (0, 255, 255)))).flatten(1).mean(1).tolist() == [-1, 1, 1]


@pytest.mark.parametrize(("width", "height"), [(12, 4), (4, 12), (4, 4), (3, 2)])
def test_every_picture_becomes_a_square(paint, width, height):
    """Oblong and small pictures are resized by their shorter side and cut, not squeezed."""
    assert fit(read_image(paint("a.png", size=(width, height))), (8, 8), (0.5, 0.5)).size == (8, 8)


def strip(colours=("red", "green", "blue")):
    picture = Image.new("RGB", (len(colours) * 8, 8))
    for place, colour in enumerate(colours):
        picture.paste(colour, (place * 8, 0, place * 8 + 8, 8))
    return picture


def test_the_centre_crop_is_the_middle(generator):
    """Of a strip of three colours the middle one is left, and nothing is drawn for it."""
    before = generator.get_state()
    assert pixel(fit(strip(), (8, 8), place_of("center", generator)), (4, 4)) == (0, 128, 0)
    assert torch.equal(generator.get_state(), before)


def test_random_crops_move_and_repeat_with_their_generator():
    """Every look at an image may differ, and the same seed gives the same looks."""

    def looks(seed):
        generator = torch.Generator().manual_seed(seed)
        return [fit(strip(), (8, 8), place_of("random", generator)).tobytes() for _ in range(4)]

    assert len(set(looks(0))) > 1
    assert looks(0) == looks(0) != looks(1)


def test_half_of_the_images_are_mirrored(tmp_path, generator):
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


def test_damaged_images_are_named_and_left_out(paint, tmp_path, noise_picture, caplog, generator):
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


@pytest.mark.parametrize("place", [(0.5, 0.5), (0.0, 1.0), (0.3, 0.9)])
@pytest.mark.parametrize("size", [(60, 40), (40, 60), (33, 77)])
def test_the_corner_says_what_was_cut_off(size, place):
    """Cutting the resized picture at that corner gives what was trained, to a pixel."""
    ramp = np.add.outer(np.arange(200.0), np.arange(120.0)).astype(np.float32)
    picture = Image.fromarray(ramp)
    height, width = size
    top, left = corner_of((200, 120), size, place)
    scale = max(height / 200, width / 120)
    resized = picture.resize((round(120 * scale), round(200 * scale)), Image.Resampling.LANCZOS)
    expected = np.asarray(resized)[top : top + height, left : left + width]
    assert np.abs(np.asarray(fit(picture, size, place)) - expected).max() < 2 / scale


# Masks


@pytest.fixture
def masked(tmp_path):
    """White on the left half of a.png's mask; b has none."""
    mask = Image.new("L", (16, 8))
    mask.paste(255, (0, 0, 8, 8))
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    mask.save(tmp_path / "masks" / "a.png")
    for name in "ab":
        Image.new("RGB", (32, 16), "red").save(tmp_path / "images" / f"{name}.jpg")
    return tmp_path


def test_a_mask_is_cut_like_its_image(masked, generator):
    """Also where it has another size and suffix; white is where the loss looks, and all counts without a mask."""
    dataset = ImageFolder(masked / "images", size=8, mask_folder=masked / "masks")
    batch = dataset.batch([0, 1], [generator] * 2)
    assert batch.mask.shape == (2, 1, 8, 8)
    assert batch.mask[0, 0, 4, [0, 1, 2, 5, 6, 7]].round(decimals=1).tolist() == [1, 1, 1, 0, 0, 0]
    assert (batch.mask[1] == 1).all()
    assert ImageFolder(masked / "images", size=8).batch([0], [generator]).mask is None


def test_a_mask_moves_with_random_cuts_and_flips(masked):
    """What counts is the same part of the picture, wherever it went."""
    Image.open(masked / "masks" / "a.png").convert("RGB").resize((32, 16)).save(
        masked / "images" / "a.jpg", quality=100
    )
    dataset = ImageFolder(masked / "images", size=8, mask_folder=masked / "masks", crop="random", flip=True)
    batch = dataset.batch([0] * 30, ItemGenerators(0, "data", 0, 30))
    assert (batch.mask - (batch.latents[:, :1] + 1) / 2).abs().max() < 0.2
    assert len({tuple(row.tolist()) for row in batch.mask[:, 0, 4]}) > 5


def test_transparency_as_mask(tmp_path, generator):
    """alpha: what is opaque counts; an image without transparency counts everywhere."""
    picture = Image.new("RGBA", (8, 8), (255, 0, 0, 255))
    picture.paste((0, 0, 0, 0), (4, 0, 8, 8))
    picture.save(tmp_path / "a.png")
    picture.convert("RGB").save(tmp_path / "b.png")
    batch = ImageFolder(tmp_path, size=8, mask_folder="alpha").batch([0, 1], [generator] * 2)
    assert batch.mask[0, 0, 0].tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
    assert (batch.mask[1] == 1).all()


def test_masks_below_the_images_are_no_images(masked, tmp_path):
    """People keep them there; they must not be trained, nor become a class."""
    (masked / "masks").rename(masked / "images" / "masks")
    dataset = ImageFolder(masked / "images", size=8, mask_folder=masked / "images" / "masks")
    assert [item.path.name for item in dataset.items] == ["a.jpg", "b.jpg"]
    assert dataset.info.classes == ()
    with pytest.raises(ValueError, match="are masks: give mask_folder a folder of its own"):
        ImageFolder(masked / "images", size=8, mask_folder=masked / "images")


@pytest.mark.parametrize(("content", "words"), [(None, "does not exist"), (b"no image", "cannot read .*a\\.png")])
def test_wrong_masks_are_refused_at_once(masked, content, words):
    """Not when their image has its turn."""
    folder = masked / "other"
    if content:
        folder.mkdir()
        (folder / "a.png").write_bytes(content)
    with pytest.raises(ValueError, match=f"mask_folder: .*{words}"):
        ImageFolder(masked / "images", size=8, mask_folder=folder)


def test_masks_of_other_images_are_refused(masked, tmp_path):
    """Misspelt names, or no transparency at all: training would quietly go on without masks."""
    (masked / "masks" / "a.png").rename(masked / "masks" / "z.png")
    for folder, words in ((masked / "masks", "has the name of a mask in '.*masks'"), ("alpha", "is transparent")):
        with pytest.raises(ValueError, match=f"mask_folder: none of the images {words}; clear it"):
            ImageFolder(masked / "images", size=8, mask_folder=folder)


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


def test_onetrainers_masks_are_used(paint, tmp_path, generator):
    """a-masklabel.png is where the loss looks in a.png, and no picture; a mask folder goes before it."""
    paint("images/a.png", size=(8, 8))
    paint("images/b.png", size=(8, 8))
    paint("images/a-masklabel.png", "black", size=(8, 8), mode="L")
    dataset = ImageFolder(tmp_path / "images", size=8)
    assert [item.path.name for item in dataset.items] == ["a.png", "b.png"]
    assert dataset.batch([0, 1], [generator] * 2).mask.mean((1, 2, 3)).tolist() == [0, 1]
    paint("masks/a-masklabel.png", "white", size=(8, 8), mode="L")
    chosen = ImageFolder(tmp_path / "images", size=8, mask_folder=tmp_path / "masks")
    assert chosen.batch([0], [generator]).mask.mean() == 1


@pytest.mark.parametrize("suffix", ["tif", "jpg", "png", "webp"])
def test_every_format_is_turned_once(tmp_path, suffix):
    """Pillow turns TIFF by itself: asked once more, a tall picture went to a wide bucket, and lost 75%."""
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / f"a.{suffix}"
    Image.new("RGB", (128, 64)).save(path, exif=exif)
    assert look(path).size == read_image(path).size[::-1] == (128, 64)
    item = ImageFolder(tmp_path, size=128, buckets=True).items[0]
    assert (item.bucket, item.lost) == ((128, 64), 0)


def test_a_picture_too_large_to_open_in_a_trainers_words(tmp_path):
    """No talk of bombs: how many megapixels, and what to do."""
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    chunks = [b"IHDR" + header, b"IDAT" + zlib.compress(b"")]
    path = tmp_path / "huge.png"
    packed = (struct.pack(">I", len(one) - 4) + one + struct.pack(">I", zlib.crc32(one)) for one in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))
    assert re.search(r"huge\.png: it has more than 179 megapixels; make it smaller", look(path).damage)


def test_a_share_is_kept_back_by_name(tmp_path):
    """Always the same images, nearly the same when some come in; none is both; in their middle, once, not mirrored."""
    for number in range(20):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{number}.png")
    options = {"size": 8, "validation": 0.2, "repeats": 3, "flip": True, "crop": "random"}
    images = ImageFolder(tmp_path, **options)
    kept = {item.path.name for item in images.held_out.items}
    assert (len(kept), images.info.count, images.held_out.info.count) == (4, 48, 4)
    assert not kept & {item.path.name for item in images.items}
    assert (images.held_out.flip, images.held_out.crop) == (False, "center")
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
