"""Masks beside a folder's images: found, cut as these are, and refused where they are wrong."""

import pytest
from comfyui_rollout.data.data import ItemGenerators
from comfyui_rollout.data.reading.images import ImageFolder
from PIL import Image


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
