"""Encode once: what is encoded when, what is kept, and what a step gets of it."""

import logging
import os
import shutil
import signal
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import comfyui_rollout.data.encodings.cache
import comfyui_rollout.data.encodings.encoding
import numpy as np
import pytest
import torch
from comfyui_rollout.data.data import ItemGenerators, Loader
from comfyui_rollout.data.encodings.cache import Cache
from comfyui_rollout.data.encodings.encoded import LATENTS, MASKS, TEXT
from comfyui_rollout.data.encodings.encoding import Encoding, Progress
from comfyui_rollout.data.reading.captions import CaptionSettings
from comfyui_rollout.data.reading.images import ImageFolder
from comfyui_rollout.diffusion.seeds import global_seed
from comfyui_rollout.runs.pictures.preview import to_rgb
from PIL import Image
from torch import nn
from torch.nn import functional as F

MIXED = torch.tensor([[1.0, 0.5, 0.2], [0.3, -1.0, 0.4], [-0.2, 0.1, 2.0], [1.0, 1.0, 1.0]])


class FakeEncoders:
    """Latents are mixed colours of 8 x 8 pixels, an encoded caption is its letters; remembers what it was asked."""

    family, channels, classes, factor, multiple = "fake", 4, 0, 8, 8
    text_identity, image_identity = "text encoder", "vae"
    control, sees_control = "none", False

    def __init__(self):
        self.events, self.captions, self.images_seen, self.stop_at = [], [], 0, None

    @contextmanager
    def text(self, device):
        self.events.append("text encoder in")
        yield self.encode_text
        self.events.append("text encoder out")

    @contextmanager
    def images(self, device):
        self.events.append("vae in")
        yield self.encode_images
        self.events.append("vae out")

    def encode_text(self, captions):
        self.captions += captions
        rows = [[ord(letter) for letter in caption[:16].ljust(16)] for caption in captions]
        return {"text": torch.tensor(rows, dtype=torch.bfloat16)}

    def longer_than_read(self, captions):
        return [caption for caption in captions if len(caption) > 100], 100

    def encode_images(self, images):
        assert torch.is_grad_enabled() is False
        self.images_seen += len(images)
        return torch.einsum("cr,brhw->bchw", MIXED, F.avg_pool2d(images, 8)) + 0.5

    def describe_size(self, original, corner, size):
        return {"sizes": torch.tensor([[*original, *corner, *size]])}


@pytest.fixture
def folder(tmp_path):
    """Four photographs in two shapes, three with captions."""
    place = tmp_path / "images"
    place.mkdir()
    generator = np.random.default_rng(0)
    for number, (name, size) in enumerate({"a": (70, 70), "b": (70, 70), "c": (128, 70), "d": (64, 64)}.items()):
        coarse = generator.integers(0, 255, (7, 7, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(place / f"{name}.png")
        if number < 3:
            (place / f"{name}.txt").write_text(f"caption {name}")
    return place


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache")


def encoding(folder, cache, encoders, captions=None, **options):
    images = ImageFolder(folder, **{"size": 64, **options})
    return Encoding(images, encoders, captions or CaptionSettings(), cache)


def encode(folder, cache, encoders=None, advance=lambda done, total: None, **options):
    """The encoded data set, and what the encoders had to do for it."""
    encoders = encoders or FakeEncoders()
    return encoding(folder, cache, encoders, **options).run("cpu", advance), encoders


def batch_of(dataset, items, seed=0):
    return dataset.batch(items, ItemGenerators(seed, "data", 0, len(items)))


def files(cache):
    return {path.relative_to(cache.folder).as_posix(): path.read_bytes() for path in cache.folder.rglob("*.*")}


# What is encoded when


def test_everything_is_encoded_once(folder, cache):
    """Each image and each different caption, the empty one included; the second time nothing, and nothing is loaded."""
    _, first = encode(folder, cache)
    assert (sorted(first.captions), first.images_seen) == (["", "caption a", "caption b", "caption c"], 4)
    kept = files(cache)
    _, second = encode(folder, cache)
    assert (second.captions, second.images_seen, second.events) == ([], 0, [])
    assert files(cache) == kept


def test_the_encoders_are_never_in_memory_together(folder, cache):
    """Text encoders first, then gone; a large model's do not fit beside its VAE."""
    _, encoders = encode(folder, cache)
    assert encoders.events == ["text encoder in", "text encoder out", "vae in", "vae out"]


def test_only_what_is_needed_is_loaded(folder, cache):
    """A new caption does not load the VAE, a new image with a known caption no text encoder."""
    encode(folder, cache)
    (folder / "a.txt").write_text("another caption")
    _, encoders = encode(folder, cache)
    assert (encoders.captions, encoders.events) == (["another caption"], ["text encoder in", "text encoder out"])
    Image.new("RGB", (64, 64), "green").save(folder / "d.png")
    _, encoders = encode(folder, cache)
    assert (encoders.images_seen, encoders.events) == (1, ["vae in", "vae out"])


def test_equal_images_and_captions_are_encoded_once(folder, cache):
    """By their content, wherever they lie: renaming costs nothing."""
    (folder / "b.txt").write_text("caption a")
    (folder / "copy.png").write_bytes((folder / "a.png").read_bytes())
    _, encoders = encode(folder, cache)
    assert (sorted(encoders.captions), encoders.images_seen) == (["", "caption a", "caption c"], 4)
    (folder / "a.png").rename(folder / "z.png")
    _, encoders = encode(folder, cache)
    assert encoders.images_seen == 0


@pytest.mark.parametrize(
    ("change", "images", "texts"),
    [
        ({"size": 128}, 4, 0),
        ({"flip": True}, 4, 0),
        ({"crop": "random"}, 4, 0),
        ({"background": "black"}, 4, 0),
        ({"repeats": 10}, 0, 0),
        ({"captions": CaptionSettings(dropout=0.5)}, 0, 0),
        ({"captions": CaptionSettings("sks")}, 0, 4),
    ],
)
def test_a_setting_encodes_what_depends_on_it(folder, cache, change, images, texts):
    """And nothing else. Another trigger word changes the caption that is missing, too."""
    encode(folder, cache)
    _, encoders = encode(folder, cache, **change)
    assert (encoders.images_seen, len(encoders.captions)) == (images, texts)


@pytest.mark.parametrize(("name", "images", "texts"), [("image_identity", 4, 0), ("text_identity", 0, 4)])
def test_another_encoder_encodes_anew(folder, cache, name, images, texts):
    """Its latents are not the old one's; and going back finds the old ones."""
    encode(folder, cache)
    other = FakeEncoders()
    setattr(other, name, "other")
    encode(folder, cache, other)
    assert (other.images_seen, len(other.captions)) == (images, texts)
    _, back = encode(folder, cache)
    assert back.events == []


class Stop(BaseException):
    pass


@pytest.mark.parametrize("after", [0, 1, 3, 5, 7])
def test_a_stopped_encoding_goes_on_where_it_was(folder, cache, after):
    """What was done is kept, nothing half-written is, and the result is that of an encoding that was not stopped."""

    def advance(done, total):
        if done >= after:
            raise Stop

    first, second = FakeEncoders(), FakeEncoders()
    options = {"buckets": True, "size": 128}
    with pytest.raises(Stop):
        encode(folder, cache, first, advance, **options)
    assert not [path for path in cache.folder.rglob("*") if path.name.startswith(".")]
    encode(folder, cache, second, **options)
    assert first.images_seen + second.images_seen == 4
    assert len(first.captions + second.captions) == len(set(first.captions + second.captions)) == 4
    whole = Cache(cache.folder.parent / "whole")
    encode(folder, whole, **options)
    assert files(cache) == files(whole)


def test_a_damaged_file_is_encoded_again(folder, cache, caplog):
    """The log names it; the others are left alone."""
    dataset, _ = encode(folder, cache)
    view, text = dataset.entries[1].views[0], dataset.text_keys["caption a"]
    good = files(cache)
    for path in (cache.path(LATENTS, view.key), cache.path(TEXT, text)):
        path.write_bytes(path.read_bytes()[:-4])
    _, encoders = encode(folder, cache)
    assert (encoders.images_seen, encoders.captions) == (1, ["caption a"])
    assert caplog.text.count("encoding once more") == 2
    assert view.key in caplog.text
    assert files(cache) == good


def test_progress_counts_what_is_missing(folder, cache, tmp_path):
    """From 0 to all of it, without a step back; nothing to do is said at once."""
    told = []
    encode(folder, cache, advance=lambda *numbers: told.append(numbers), flip=True)
    assert told[0] == (0, 12)
    assert told[-1] == (12, 12)
    assert told == sorted(told)
    told.clear()
    encode(folder, cache, advance=lambda *numbers: told.append(numbers), flip=True)
    assert told == [(0, 0)]


def test_the_log_says_how_long_it_will_take(monkeypatch, caplog):
    """Now and then, not for each file: 1 of 4 in 30 seconds leaves a minute and a half."""
    clock = iter([0.0, 5.0, 30.0, 31.0])
    monkeypatch.setattr("comfyui_rollout.data.encodings.encoding.time.monotonic", lambda: next(clock))
    caplog.set_level(logging.INFO)
    progress = Progress(8, lambda done, total: None)
    for _ in range(3):
        progress.add(1)
    assert caplog.messages == ["encoded 2 of 8, 1:30 left"]


class RealEncoders(FakeEncoders):
    """A VAE and a text encoder whose last bits depend on what else is in a batch, as those of real ones do."""

    def __init__(self):
        from diffusers import AutoencoderKL

        super().__init__()
        with global_seed(0):
            blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
            self.vae = AutoencoderKL(block_out_channels=(32, 64, 64, 64), latent_channels=4, **blocks).eval()
            layer = nn.TransformerEncoderLayer(32, 2, 64, dropout=0.0, batch_first=True)
            self.transformer = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
            self.letters = torch.randn(128, 32)

    def encode_text(self, captions):
        self.captions += captions
        letters = [[ord(letter) for letter in caption[:16].ljust(16)] for caption in captions]
        return {"text": self.transformer(self.letters[torch.tensor(letters)])}

    def encode_images(self, images):
        self.images_seen += len(images)
        return self.vae.encode(images).latent_dist.mode()


@pytest.mark.parametrize("stop", [1, 4, 6, 9])
def test_an_interrupted_encoding_ends_with_the_same_bits(folder, tmp_path, stop):
    """Wherever it was stopped, in buckets and mirrored: latents and texts are those of one that was not."""
    options = {"buckets": True, "size": 128, "flip": True}
    whole, stopped = Cache(tmp_path / "whole"), Cache(tmp_path / "stopped")
    encode(folder, whole, RealEncoders(), **options)

    def advance(done, total):
        if done == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode(folder, stopped, RealEncoders(), advance, **options)
    assert len(files(stopped)) == stop
    encode(folder, stopped, RealEncoders(), **options)
    assert files(stopped) == files(whole)


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
@pytest.mark.parametrize("number", [3, 20, 50])
def test_a_killed_encoding_ends_with_the_same_bits(folder, tmp_path, number):
    """SIGKILL before a change of files: nothing half written is ever taken for whole."""
    import faults

    whole, killed = Cache(tmp_path / "whole"), Cache(tmp_path / "killed")
    encode(folder, whole)

    def work():
        faults.dying_at(number, faults.Promise())
        encode(folder, killed)

    assert faults.forked(work, words=tmp_path / "words.txt") == -signal.SIGKILL, (tmp_path / "words.txt").read_text()
    encode(folder, killed)
    for half in killed.folder.glob("*/.*"):
        shutil.rmtree(half)
    assert files(killed) == files(whole)


def test_a_disk_that_fills_while_encoding_is_one_line(folder, cache, tmp_path, monkeypatch):
    """It says what to do; what was encoded stays, and the rest follows when there is room."""
    whole, kept = Cache(tmp_path / "whole"), []
    encode(folder, whole)
    save = comfyui_rollout.data.encodings.cache.save_weights

    def full(*given):
        if len(kept) == 5:
            raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")
        kept.append(save(*given))

    monkeypatch.setattr(comfyui_rollout.data.encodings.cache, "save_weights", full)
    with pytest.raises(
        ValueError, match=r"^cache_folder: '.*' is on a disk that is full; what is encoded so far is kept"
    ):
        encode(folder, cache)
    assert len(files(cache)) == 5
    monkeypatch.setattr(comfyui_rollout.data.encodings.cache, "save_weights", save)
    encode(folder, cache)
    assert files(cache) == files(whole)


def test_a_picture_has_the_same_bits_whatever_else_is_in_the_folder(folder, tmp_path):
    """And in whatever order they came: the key of its latents says nothing of neighbours."""
    whole, grown = Cache(tmp_path / "whole"), Cache(tmp_path / "grown")
    encode(folder, whole, RealEncoders())
    away = tmp_path / "away"
    away.mkdir()
    for name in ("a.png", "a.txt", "d.png"):
        (folder / name).rename(away / name)
    encode(folder, grown, RealEncoders())
    for path in away.iterdir():
        path.rename(folder / path.name)
    encode(folder, grown, RealEncoders())
    assert files(grown) == files(whole)


def test_what_files_hold_is_read_once(folder, cache, monkeypatch, tmp_path):
    """A large folder's bytes are not read through again at each start, to find that nothing has changed."""
    monkeypatch.setattr("comfyui_rollout.data.reading.index.LEAST", 1)
    monkeypatch.setattr("comfyui_rollout.data.reading.index.TICK", 0)
    time.sleep(0.02)
    read, content_of = [], comfyui_rollout.data.encodings.encoding.content_of

    def counted(path):
        read.append(path.name)
        return content_of(path)

    monkeypatch.setattr("comfyui_rollout.data.encodings.encoding.content_of", counted)
    encode(folder, cache, indexes=tmp_path / "index")
    assert sorted(read) == ["a.png", "b.png", "c.png", "d.png"]
    kept = files(cache)
    encode(folder, cache, indexes=tmp_path / "index")
    assert len(read) == 4
    Image.new("RGB", (64, 64), "green").save(folder / "d.png")
    encode(folder, cache, indexes=tmp_path / "index")
    assert read[4:] == ["d.png"]
    assert len(files(cache)) == len(kept) + 1


# What is kept


def test_captions_that_will_not_fit_are_noticed_after_the_first(folder, cache, monkeypatch, caplog):
    """They may be larger than the latents, and their size is only known by then; where one is cached, before any."""
    encode(folder, Cache(folder / "elsewhere"))
    size = next((folder / "elsewhere" / TEXT).iterdir()).stat().st_size
    latents = 4 * 4 * 4 * 8 * 8
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": latents + 3 * size - 1}))
    caplog.set_level(logging.INFO)
    encoders = FakeEncoders()
    with pytest.raises(ValueError, match="cache_folder: the latents and captions take"):
        encode(folder, cache, encoders)
    assert (encoders.captions, encoders.images_seen) == ([""], 0)
    assert caplog.messages == [f"an encoded caption takes {size} B, the 3 that are missing {3 * size} B"]
    assert encoding(folder, cache, encoders).missing_text_bytes == 3 * size
    with pytest.raises(ValueError, match="cache_folder: the latents and captions take"):
        encode(folder, cache, encoders)
    assert encoders.captions == [""]
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": latents + 3 * size}))
    encode(folder, cache, encoders)
    assert encoders.images_seen == 4


def test_a_mirrored_image_is_decoded_once(folder, cache, monkeypatch):
    """Its pixels are only flipped; decoding takes as long as encoding does on a good card."""
    decoded, pixels = [], ImageFolder.pixels

    def counted(self, item, place):
        decoded.append(item.path.name)
        return pixels(self, item, place)

    monkeypatch.setattr(ImageFolder, "pixels", counted)
    encode(folder, cache, flip=True)
    assert sorted(decoded) == ["a.png", "b.png", "c.png", "d.png"]


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="asks Linux")
def test_no_file_is_mapped_for_the_colours(folder, cache, monkeypatch):
    """The system allows 65,530 maps; a data set may have more images."""
    seen, load_one = [], Cache.load_one

    def watched(self, *asked):
        seen.append(Path("/proc/self/maps").read_text().count(str(cache.folder)))
        return load_one(self, *asked)

    encode(folder, cache)
    monkeypatch.setattr(Cache, "load_one", watched)
    encode(folder, cache)
    assert len(seen) == 4
    assert max(seen) <= 1


def test_the_folder_of_an_encoding_tells_what_it_will_do(folder, cache):
    """Counts and bytes before anything is loaded."""
    before = encoding(folder, cache, FakeEncoders(), flip=True)
    assert (before.missing, before.missing_bytes) == (12, 8 * 4 * 4 * 8 * 8)
    before.run("cpu", lambda done, total: None)
    after = encoding(folder, cache, FakeEncoders(), flip=True)
    assert (after.missing, after.missing_bytes) == (0, 0)


def test_a_full_disk_is_noticed_before_anything_is_loaded(folder, cache, monkeypatch):
    """One line with what is needed and what is there."""
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    encoders = FakeEncoders()
    with pytest.raises(ValueError, match=r"cache_folder: the latents take 4 kB, and '.*' has 1 kB left"):
        encode(folder, cache, encoders)
    assert encoders.events == []


@pytest.mark.parametrize(
    ("options", "words"),
    [({"color": "L"}, "color: the model's VAE reads RGB"), ({"size": 60}, r"multiples of 8, not 60 x 60")],
)
def test_images_that_the_encoder_cannot_read_are_refused(folder, cache, options, words):
    """Before anything is loaded."""
    with pytest.raises(ValueError, match=words):
        encoding(folder, cache, FakeEncoders(), **options)


# What a step gets


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


@pytest.mark.parametrize(
    ("options", "words"), [({}, "sort the images into sub-folders"), ({"buckets": True, "size": 128}, "buckets")]
)
def test_what_a_class_conditional_model_cannot_take_is_refused(folder, cache, options, words):
    """Images without classes, and oblong ones."""
    encoders = FakeEncoders()
    encoders.classes = 10
    if options:
        (folder / "one").mkdir()
        for path in folder.glob("*.*"):
            path.rename(folder / "one" / path.name)
    with pytest.raises(ValueError, match=words):
        encoding(folder, cache, encoders, **options)


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


def test_a_picture_of_which_the_vae_makes_no_numbers_is_named(folder, cache, monkeypatch):
    """Half precision overflows in some VAEs: the picture and the remedy, in place of a failure in linear algebra."""
    encoders = FakeEncoders()
    real = encoders.encode_images
    monkeypatch.setattr(encoders, "encode_images", lambda images: real(images) * float("nan"))
    encoding = Encoding(ImageFolder(folder, size=64), encoders, CaptionSettings(), cache)
    with pytest.raises(ValueError, match=r"no finite numbers of .*a\.png: choose storage fp32 in Load Pretrained"):
        encoding.run("cpu", lambda done, total: None)
    assert not list(cache.folder.glob("latents/*"))


def test_captions_longer_than_the_encoder_reads_are_found(folder, cache):
    """Each image once, whatever its variants; short ones are not even counted."""
    (folder / "a.txt").write_text("a, " * 60)
    encoding = Encoding(ImageFolder(folder, size=64), FakeEncoders(), CaptionSettings(shuffle_tags=True), cache)
    items, most = encoding.cut_captions()
    assert ([item.path.name for item in items], most) == (["a.png"], 100)


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
