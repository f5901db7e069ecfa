"""What people read before anything is loaded."""

import pytest
from comfyui_rollout.data.preflight import epoch_in_words, images_in_words, steps_in_words
from comfyui_rollout.data.reading.images import ImageFolder
from PIL import Image


@pytest.fixture
def paint(tmp_path):
    """``paint("cat.png", (width, height), caption="a cat")``: an image in the test's folder."""

    def save(name, size=(64, 64), caption=None, mode="RGB"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new(mode, size).save(path)
        if caption is not None:
            path.with_suffix(".txt").write_text(caption)

    return save


def words(tmp_path, batch_size=1, **options):
    return images_in_words(ImageFolder(tmp_path, **{"size": 64, **options}), batch_size)


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ((24, 10, 4), "24 images x 10 repeats / batch 4 = 60 steps per epoch"),
        ((1, 1, 1), "1 image x 1 repeat / batch 1 = 1 step per epoch"),
        ((5, 1, 4), "5 images x 1 repeat / batch 4 = 2 steps per epoch"),
    ],
)
def test_the_arithmetic_of_an_epoch(numbers, text):
    """As a person would check it; the last batch of an epoch counts even if it reaches into the next."""
    assert epoch_in_words(*numbers) == text


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ({"count": 240, "batch_size": 4, "steps": 600}, "600 steps = 10 epochs of 240 images"),
        ({"count": 240, "batch_size": 4, "steps": 100}, "100 steps = 1.67 epochs of 240 images"),
        ({"count": 240, "batch_size": 2, "steps": 600, "accumulation": 2}, "600 steps = 10 epochs of 240 images"),
    ],
)
def test_steps_in_epochs(numbers, text):
    """Accumulated batches count."""
    assert steps_in_words(**numbers) == text


def test_several_resolutions_are_one_folder(paint, tmp_path):
    """Each picture is counted once, its captions and faults are told once, and the epoch is that of all sizes."""
    for name in ("a", "b", "c"):
        paint(f"{name}.png", (128, 64), caption=name)
    found = words(tmp_path, 2, resolutions=[64, 128], repeats=5, validation=0.3)
    assert found[:3] == [
        "2 images (4 at 64, 128) x 5 repeats / batch 2 = 10 steps per epoch",
        "validation: 1 image not trained, for the validation loss: a.png",
        "captions: 2 of 2",
    ]
    assert found[3:] == [
        "buckets (height x width): 64x64: 2, 128x128: 2",
        "2 images enlarged, being smaller: b.png, c.png",
        "2 images cut by more than a tenth: b.png 50%, c.png 50%; buckets keep oblong images oblong",
    ]


def test_a_folder_that_is_all_right(paint, tmp_path):
    """Two lines, and no complaint."""
    for name in ("a", "b"):
        paint(f"{name}.png", caption=f"caption {name}")
    assert words(tmp_path, batch_size=2, repeats=10) == [
        "2 images x 10 repeats / batch 2 = 10 steps per epoch",
        "captions: 2 of 2",
    ]


def test_captions_that_are_missing_empty_misspelt_or_shared(paint, tmp_path):
    """Four things that nobody sees in a folder of hundreds."""
    paint("a.jpg", caption="a cat")
    paint("a.png")
    paint("b.png", caption=" \n")
    for name in "cdefg":
        paint(f"{name}.png")
    (tmp_path / "cc.txt").write_text("for c.png")
    assert words(tmp_path)[1:] == [
        "captions: 3 of 8; none for c.png, d.png, e.png, 2 more (empty)",
        "1 caption empty: b.png",
        "1 caption file without an image: cc.txt",
        "a.jpg, a.png share a.txt",
    ]


def test_a_caption_for_all(paint, tmp_path):
    """What stands in is said."""
    paint("a.png")
    assert words(tmp_path, default_caption="a dog")[1] == "captions: 0 of 1 ('a dog' stands in)"
    assert words(tmp_path)[1] == "captions: 0 of 1 (empty)"


def test_classes_need_no_captions(paint, tmp_path):
    """A folder sorted by class is not told that it lacks captions, until it is known that the model reads them."""
    paint("cat/a.png")
    paint("dog/b.png")
    first, classes = (
        "2 images x 1 repeat / batch 2 = 1 step per epoch",
        "classes, for models that know them: cat 1, dog 1",
    )
    assert words(tmp_path, batch_size=2) == [first, classes]
    images = ImageFolder(tmp_path, size=64)
    assert images_in_words(images, 2, reads_text=True) == [first, "captions: 0 of 2 (empty)"]
    assert images_in_words(images, 2, reads_text=False) == [first, classes]


def test_damaged_images_are_named(paint, tmp_path):
    """On the node, not only in the log."""
    paint("a.png", caption="a")
    (tmp_path / "b.png").write_text("no image")
    assert words(tmp_path)[1].startswith("left out 1 unreadable image: cannot read")
    assert "b.png" in words(tmp_path)[1]


def test_buckets_with_their_numbers(paint, tmp_path):
    """Which sizes there will be, and which images are enlarged for them."""
    paint("a.png", (200, 100), "a")
    paint("b.png", (128, 128), "b")
    paint("c.png", (64, 64), "c")
    found = words(tmp_path, size=128, buckets=True)
    assert found[2:] == [
        "buckets (height x width): 64x128: 1, 128x128: 2",
        "1 image enlarged, being smaller: c.png",
    ]
    kept = words(tmp_path, size=128, buckets=True, upscale=False)
    assert kept[2:] == ["buckets (height x width): 64x64: 1, 64x128: 1, 128x128: 1"]


def test_masks_found_and_missing(paint, tmp_path):
    """By their names in a folder, or by the images' transparency."""
    paint("images/a.png", caption="a")
    paint("images/b.png", caption="b", mode="RGBA")
    paint("masks/a.png", mode="L")
    options = {"mask_folder": tmp_path / "masks"}
    assert words(tmp_path / "images", **options)[-1] == "masks: 1 of 2; everything counts in b.png"
    alpha = words(tmp_path / "images", mask_folder="alpha")
    assert alpha[-1] == "transparency: 1 of 2; everything counts in a.png"


# What training would do without a word


def test_kohyas_folders_are_read_and_said(paint, tmp_path):
    """N_words: so many repeats, and the words where there is no caption."""
    paint("10_sks dog/a.png")
    paint("2_dog/b.png", caption="a dog that sleeps")
    assert words(tmp_path, batch_size=2)[:2] == [
        "2 images (12 with the repeats of their folders) x 1 repeat / batch 2 = 6 steps per epoch",
        "folder names as kohya's trainers read them (kohya_folders): 10_sks dog x 10, 2_dog x 2",
    ]
    assert words(tmp_path)[3] == "captions: 1 of 2; none for a.png (the words of their folders stand in: 'sks dog')"
    assert words(tmp_path, kohya_folders=False)[0] == "2 images x 1 repeat / batch 1 = 2 steps per epoch"


def test_what_is_left_out_is_said_by_its_reason(paint, tmp_path):
    """Copies that programs keep, masks without their picture, and kinds that are not read."""
    paint("a.png", caption="a")
    paint(".ipynb_checkpoints/a-checkpoint.png")
    paint("b-masklabel.png")
    (tmp_path / "c.cr2").write_bytes(b"raw")
    (tmp_path / "notes.md").write_text("notes")
    assert words(tmp_path)[1:] == [
        "left out, hidden or system: .ipynb_checkpoints",
        "left out, mask without its picture: b-masklabel.png",
        "not read: 1 file .cr2 (convert to JPEG or PNG), e.g. c.cr2",
        "not read: 1 file .md, e.g. notes.md",
        "captions: 1 of 1",
    ]


def test_encodings_other_than_utf8_are_said(paint, tmp_path):
    """What was guessed can be looked at."""
    paint("a.png")
    paint("b.png", caption="plain")
    (tmp_path / "a.txt").write_bytes("the dog\u2019s bed".encode("cp1252"))
    assert words(tmp_path)[2] == "1 caption file decoded as Windows-1252: a.txt"


def test_crops_that_lose_more_than_a_tenth_are_named(paint, tmp_path):
    """The worst first, with what to do about it."""
    paint("pano.png", (1000, 125), "a")
    paint("wide.png", (160, 128), "b")
    paint("square.png", (128, 128), "c")
    assert words(tmp_path, size=128)[-1] == (
        "2 images cut by more than a tenth: pano.png 88%, wide.png 20%; buckets keep oblong images oblong"
    )
    assert words(tmp_path, size=256, buckets=True)[-1] == (
        "2 images cut by more than a tenth: pano.png 75%, wide.png 20%; raise max_aspect_ratio, 8 for the first"
    )
    wider = words(tmp_path, size=256, buckets=True, max_aspect_ratio=8)
    assert wider[-1] == "1 image cut by more than a tenth: wide.png 20%; a larger size has more buckets"


def test_batches_larger_than_their_bucket_are_said(paint, tmp_path):
    """Else nobody knows that a batch of four is one picture four times."""
    paint("a.png", (200, 100), "a")
    for name in "bc":
        paint(f"{name}.png", (128, 128), name)
    found = words(tmp_path, batch_size=2, size=128, buckets=True)
    assert found[-1] == (
        "fewer images than the batch (2), which holds some several times: 64x128 (1); lower batch_size or add images"
    )
    assert "all 3 images" in words(tmp_path, batch_size=4)[-1]
