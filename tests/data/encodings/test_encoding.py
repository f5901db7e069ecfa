"""Encode once: what is encoded when, what is kept, and what a step gets of it."""

import logging
import shutil
import signal
import sys
import time
from pathlib import Path

import comfyui_rollout.data.encodings.cache
import comfyui_rollout.data.encodings.encoding
import pytest
import torch
from comfyui_rollout.data.encodings.cache import Cache
from comfyui_rollout.data.encodings.encoded import LATENTS, TEXT
from comfyui_rollout.data.encodings.encoding import Encoding, Progress
from comfyui_rollout.data.reading.captions import CaptionSettings
from comfyui_rollout.data.reading.images import ImageFolder
from comfyui_rollout.diffusion.seeds import global_seed
from fake_encoders import FakeEncoders, encode, encoding
from PIL import Image
from torch import nn


def files(cache):
    return {path.relative_to(cache.folder).as_posix(): path.read_bytes() for path in cache.folder.rglob("*.*")}


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
