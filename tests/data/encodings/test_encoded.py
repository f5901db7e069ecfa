"""Encoded images as a data set: what the encoders made, drawn as the images are."""

import os
from pathlib import Path

import pytest
import torch
from comfyui_rollout.data.data import ItemGenerators, Loader
from comfyui_rollout.data.encodings.encoded import MASKS
from comfyui_rollout.data.encodings.encoding import Encoding
from comfyui_rollout.data.reading.captions import CaptionSettings
from comfyui_rollout.data.reading.images import ImageFolder
from comfyui_rollout.runs.pictures.preview import to_rgb
from fake_encoders import FakeEncoders, encode
from PIL import Image
from torch.nn import functional as F


def batch_of(dataset, items, seed=0):
    return dataset.batch(items, ItemGenerators(seed, "data", 0, len(items)))


def test_a_batch_is_what_the_encoders_made(folder, cache):
    """Latents in float32, text in its own dtype, sizes, and the captions themselves."""
    dataset, _ = encode(folder, cache)
    batch = batch_of(dataset, [2, 0])
    images = torch.stack([dataset_pixels(folder, name) for name in "ca"])
    torch.testing.assert_close(batch.latents, encoders_latents(images))
    assert batch.captions == ("caption c", "caption a")
    assert torch.equal(batch.conditioning["text"], FakeEncoders().encode_text(["caption c", "caption a"])["text"])
    assert batch.conditioning["sizes"].tolist() == [[70, 128, 0, 26, 64, 64], [70, 70, 0, 0, 64, 64]]
    assert (batch.mask, batch.weight) == (None, None)


def dataset_pixels(folder, name, **options):
    images = ImageFolder(folder, size=64, **options)
    return images.pixels(next(item for item in images.items if item.path.stem == name), (0.5, 0.5))


def encoders_latents(images):
    with torch.no_grad():
        return FakeEncoders().encode_images(images)


def test_what_is_known_of_it_is_in_latents(folder, cache):
    """Channels, size and family are those of the latents; a text model has no classes."""
    info = encode(folder, cache, repeats=3)[0].info
    assert (info.count, info.channels, info.size, info.family, info.classes) == (12, 4, 8, "fake", ())


def test_mirrored_images_are_encoded_too(folder, cache):
    """Mirrored latents are no latents of the mirrored image, for no autoencoder is symmetric."""
    ramp = torch.linspace(0, 1, 64)
    lopsided = FakeEncoders()
    lopsided.encode_images = lambda images: encoders_latents(images * ramp)
    dataset, _ = encode(folder, cache, lopsided, flip=True)
    pixels = dataset_pixels(folder, "a")[None]
    expected = [encoders_latents(image * ramp) for image in (pixels, pixels.flip(-1))]
    seen = [batch_of(dataset, [0], seed).latents for seed in range(20)]
    matches = [[torch.equal(latents, one) for latents in seen] for one in expected]
    assert all(map(any, matches))
    assert sum(map(sum, matches)) == 20


def test_the_cut_is_told_as_it_is_seen(folder, cache):
    """In a mirrored image, what was cut off at the right lies at the left."""
    dataset, _ = encode(folder, cache, flip=True, crop="random")
    view, mirrored = dataset.entries[2].views
    assert (view.flipped, mirrored.flipped) == (False, True)
    (top, left), width = view.corner, round(128 * 64 / 70)
    assert mirrored.corner == (top, width - 64 - left)
    seen = {tuple(batch_of(dataset, [2], seed).conditioning["sizes"][0].tolist()) for seed in range(20)}
    assert seen == {(70, 128, *corner, 64, 64) for corner in (view.corner, mirrored.corner)}


def test_a_random_cut_stays_where_it_is(folder, cache):
    """It is encoded once, so it is drawn once: by the image's content, not by its place in the folder."""
    first = encode(folder, cache, crop="random")[0].entries[2].views[0].place
    Image.new("RGB", (64, 64)).save(folder / "0.png")
    assert encode(folder, cache, crop="random")[0].entries[3].views[0].place == first != (0.5, 0.5)


def test_captions_are_dropped_as_often_as_asked(folder, cache):
    """The empty caption stands in, text and all."""
    dataset, _ = encode(folder, cache, captions=CaptionSettings(dropout=0.25))
    batch = batch_of(dataset, [0] * 400)
    dropped = [caption == "" for caption in batch.captions]
    assert 0.18 < sum(dropped) / 400 < 0.32
    empty = FakeEncoders().encode_text([""])["text"]
    assert (batch.conditioning["text"] == empty).all(1).tolist() == dropped
    never = batch_of(encode(folder, cache)[0], [0] * 100)
    assert set(never.captions) == {"caption a"}


def test_every_order_of_tags_has_its_turn(folder, cache):
    """Each as often as the others."""
    (folder / "a.txt").write_text("x, y, z")
    captions = CaptionSettings("sks", shuffle_tags=True, variants=3)
    dataset, _ = encode(folder, cache, captions=captions)
    seen = batch_of(dataset, [0] * 300).captions
    counts = [seen.count(text) for text in captions.variants_of("x, y, z")]
    assert sum(counts) == 300
    assert min(counts) > 60


def test_an_item_is_drawn_by_its_place_in_the_run(folder, cache):
    """Two processes that share a batch see the numbers that one would see, and settings do not shift one another."""
    dataset, _ = encode(folder, cache, flip=True, captions=CaptionSettings(dropout=0.5))
    items = [0, 1, 2, 3] * 4
    whole = dataset.batch(items, ItemGenerators(7, "data", 32, 16))
    halves = [dataset.batch(items[at : at + 8], ItemGenerators(7, "data", 32 + at, 8)) for at in (0, 8)]
    assert torch.equal(whole.latents, torch.cat([half.latents for half in halves]))
    assert whole.captions == halves[0].captions + halves[1].captions
    without, _ = encode(folder, cache, flip=True)
    assert torch.equal(without.batch(items, ItemGenerators(7, "data", 32, 16)).latents, whole.latents)


def test_masks_are_shrunk_to_the_latents_and_follow_the_image(tmp_path, cache):
    """The share of each latent's pixels that counts, cut and mirrored as the image; everywhere without a mask."""
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    half = Image.new("L", (128, 64))
    half.paste(255, (0, 0, 68, 64))
    half.save(tmp_path / "masks" / "a.png")
    for name in "ab":
        Image.new("RGB", (128, 64), "red").save(tmp_path / "images" / f"{name}.png")
    options = {"mask_folder": tmp_path / "masks", "flip": True}
    dataset, _ = encode(tmp_path / "images", cache, **options)
    seen = [batch_of(dataset, [0, 1], seed) for seed in range(20)]
    row = [1, 1, 1, 1, 0.5, 0, 0, 0]  # the middle 64 pixels of 128: white up to the 36th
    for batch in seen:
        assert batch.mask.shape == (2, 1, 8, 8)
        assert (batch.mask[1] == 1).all()
    rows = {tuple(batch.mask[0, 0, 3].mul(2).round().div(2).tolist()) for batch in seen}
    assert rows == {tuple(row), tuple(row[::-1])}
    assert sum(1 for path in cache.folder.rglob("*") if path.parent.name == MASKS) == 1
    Image.new("L", (128, 64), 255).save(tmp_path / "masks" / "a.png")
    changed, encoders = encode(tmp_path / "images", cache, **options)
    assert encoders.events == []
    assert (batch_of(changed, [0]).mask == 1).all()


def test_a_weight_comes_with_every_item(folder, cache):
    """Prior preservation: these images count half."""
    dataset, _ = encode(folder, cache, loss_weight=0.5)
    assert batch_of(dataset, [0, 1]).weight.tolist() == [0.5, 0.5]


def test_classes_in_place_of_captions(tmp_path, cache):
    """A class-conditional model gets labels; dropped, the label that stands for no class."""
    for name in ("cat/1.png", "dog/1.png"):
        (tmp_path / "images" / name).parent.mkdir(parents=True)
        Image.new("RGB", (64, 64)).save(tmp_path / "images" / name)
    encoders = FakeEncoders()
    encoders.classes = 10
    dataset, _ = encode(tmp_path / "images", cache, encoders, captions=CaptionSettings(dropout=0.5))
    assert encoders.events == ["vae in", "vae out"]
    assert dataset.info.classes == ("cat", "dog")
    labels = batch_of(dataset, [0, 1] * 50).conditioning["label"]
    assert set(labels[::2].tolist()) == {0, 10}
    assert set(labels[1::2].tolist()) == {1, 10}


def test_the_colours_of_the_latents_are_found(folder, cache):
    """A linear autoencoder's latents look like the picture, not like three of their channels."""
    dataset, _ = encode(folder, cache, flip=True)
    pixels = dataset_pixels(folder, "b")[None]
    latents = encoders_latents(pixels)
    picture = F.avg_pool2d(pixels, 8) / 2 + 0.5
    assert (to_rgb(latents, dataset.info.colours) - picture).abs().max() < 0.01
    assert (to_rgb(latents) - picture).abs().max() > 0.1


def test_buckets_stay_apart_in_latents(folder, cache):
    """Every batch of the loader has one size."""
    dataset, _ = encode(folder, cache, buckets=True, size=128)
    assert dataset.info.size is None
    loader = Loader(dataset, 2, 0, "data")
    shapes = [tuple(loader.batch(index).latents.shape[1:]) for index in range(8)]
    assert shapes.count((4, 8, 16)) == 2
    assert shapes.count((4, 16, 16)) == 6


def test_resolutions_share_captions_and_stay_apart_in_latents(folder, cache):
    """What one run encoded of a resolution serves one of several; a place in an epoch has the picture's own caption."""
    alone, _ = encode(folder, cache, size=128)
    images = ImageFolder(folder, resolutions=[64, 128])
    encoding = Encoding(images, FakeEncoders(), CaptionSettings(), cache)
    assert (len(encoding.missing_views), encoding.missing_texts) == (4, [])
    dataset = encoding.run("cpu", lambda done, total: None)
    assert dataset.info.count == 2 * alone.info.count
    for place in range(4):
        small, large = batch_of(dataset, [2 * place]), batch_of(dataset, [2 * place + 1])
        assert small.captions == large.captions == (images.pictures[place].caption,)
        assert (small.latents.shape[-2:], large.latents.shape[-2:]) == ((8, 8), (16, 16))
        assert torch.equal(large.latents, batch_of(alone, [place]).latents)
    shapes = [tuple(Loader(dataset, 2, 0, "data").batch(index).latents.shape[2:]) for index in range(4)]
    assert sorted(shapes) == [(8, 8), (8, 8), (16, 16), (16, 16)]


def test_batches_can_be_trained_on(folder, cache):
    """Encoded inside ComfyUI's inference mode, read on a thread: plain tensors, not inference tensors."""
    with torch.inference_mode():
        dataset, _ = encode(folder, cache)
        assert not dataset.info.colours.is_inference()
        batch = Loader(dataset, 2, 0, "data").batch(0)
    assert not any(value.is_inference() for value in (batch.latents, *batch.conditioning.values()))


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open files as Linux tells them")
def test_no_file_stays_open(folder, cache):
    """A long run reads the same files millions of times."""
    dataset, _ = encode(folder, cache)
    batch_of(dataset, [0, 1, 2, 3])
    before = len(os.listdir("/proc/self/fd"))
    for seed in range(20):
        batch_of(dataset, [0, 1, 2, 3], seed)
    encode(folder, cache)
    assert len(os.listdir("/proc/self/fd")) <= before


def test_a_cache_that_was_emptied_says_what_to_do(folder, cache):
    """Not a bare file error in the middle of a run."""
    dataset, _ = encode(folder, cache)
    for path in cache.folder.rglob("*.safetensors"):
        path.unlink()
    with pytest.raises(ValueError, match="run Encode Dataset again"):
        batch_of(dataset, [0])


def test_repeats_of_kohyas_folders_reach_the_batches(folder, cache):
    """An encoded data set goes through the same epoch."""
    (folder / "3_dog").mkdir()
    (folder / "a.png").rename(folder / "3_dog" / "a.png")
    images = ImageFolder(folder, size=64)
    encoded = Encoding(images, FakeEncoders(), CaptionSettings(), cache).run("cpu", lambda done, total: None)
    assert encoded.info.count == 6
    batch = encoded.batch(list(range(6)), ItemGenerators(0, "data", 0, 6))
    assert list(batch.captions) == [images.items[number].caption for number in images.order]
    assert batch.captions.count("dog") == 3


def test_images_for_validation_are_encoded_too_and_always_look_the_same(folder, cache):
    """In one go with the others; each once and not mirrored, with its caption whatever the dropout, in its bucket."""
    told = {"flip": True, "buckets": True, "captions": CaptionSettings(dropout=1.0)}
    dataset, encoders = encode(folder, cache, validation=0.5, **told)
    kept = dataset.held_out
    assert (dataset.info.count, kept.info.count, kept.held_out) == (2, 2, None)
    assert encoders.events == ["text encoder in", "text encoder out", "vae in", "vae out"]
    names = [{entry.views[0].item.path.name for entry in each.entries} for each in (dataset, kept)]
    assert names[0] | names[1] == {"a.png", "b.png", "c.png", "d.png"}
    assert [len(entry.views) for entry in (*dataset.entries, *kept.entries)] == [2, 2, 1, 1]
    for item, entry in enumerate(kept.entries):
        first, second = (batch_of(kept, [item], seed) for seed in (1, 2))
        assert torch.equal(first.latents, second.latents)
        assert first.captions == second.captions == (entry.views[0].item.caption,)
    assert batch_of(dataset, [0]).captions == ("",)
