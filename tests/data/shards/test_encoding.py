"""Encode once, shard by shard: what a folder of the same files gives, made once whoever makes it."""

import threading
from contextlib import contextmanager

import pytest
import torch
from comfyui_rollout.data.data import Loader
from comfyui_rollout.data.encodings.cache import Cache
from comfyui_rollout.data.encodings.encoding import Encoding
from comfyui_rollout.data.names import name_of
from comfyui_rollout.data.reading.captions import CaptionSettings
from comfyui_rollout.data.reading.images import ImageFolder
from comfyui_rollout.data.shards import store
from comfyui_rollout.data.shards.encoding import ShardEncoding
from comfyui_rollout.data.shards.preflight import cut_in_words, shard_encoding_in_words
from torch.nn import functional as F


class FakeEncoders:
    """Latents are colours of 8 x 8 pixels, an encoded caption is its letters; counts what it was asked."""

    family, channels, factor, multiple = "fake", 3, 8, 8
    text_identity, image_identity = "text encoder", "vae"
    control, sees_control = "none", False

    def __init__(self, classes=0):
        self.classes, self.captions, self.pictures, self.inside, self.stop_at = classes, [], 0, [], None

    @contextmanager
    def text(self, device):
        self.inside.append("text")
        yield self.encode_text
        self.inside.remove("text")

    @contextmanager
    def images(self, device):
        assert not self.inside
        yield self.encode_images

    def encode_text(self, captions):
        self.captions += captions
        rows = [[ord(letter) for letter in caption[:16].ljust(16)] for caption in captions]
        return {"text": torch.tensor(rows, dtype=torch.float32)}

    def longer_than_read(self, captions):
        return [], 100

    def encode_images(self, images):
        if self.pictures == self.stop_at:
            raise KeyboardInterrupt
        self.pictures += len(images)
        return F.avg_pool2d(images, 8)

    def describe_size(self, original, corner, size):
        return {"sizes": torch.tensor([[*original, *corner, *size]])}


def quiet(done, total):
    pass


def encode(images, cache, encoders=None, captions=None, kind=ShardEncoding):
    """The encoded data set, and the encoders."""
    encoders = encoders or FakeEncoders()
    return kind(images, encoders, captions or CaptionSettings(), Cache(cache)).run("cpu", quiet), encoders


def same(one, other):
    assert torch.equal(one.latents, other.latents)
    assert one.captions == other.captions
    assert one.conditioning.keys() == other.conditioning.keys()
    assert all(torch.equal(one.conditioning[name], other.conditioning[name]) for name in one.conditioning)
    assert all(torch.equal(one.negative()[name], other.negative()[name]) for name in one.negative())


@pytest.mark.parametrize(
    ("options", "captions"),
    [
        ({}, CaptionSettings()),
        (
            {"size": 128, "buckets": True, "flip": True, "crop": "random", "default_caption": "a, b, c"},
            CaptionSettings("word", shuffle_tags=True, variants=3, dropout=0.3),
        ),
    ],
)
def test_the_same_files_give_the_same_latents(folder, tars, read, tmp_path, options, captions):
    """To the bit, with the captions, sizes and cuts that the folder's have, batch by batch."""
    options = {"size": 64, **options}
    images, _ = encode(ImageFolder(folder, **options), tmp_path / "one", captions=captions, kind=Encoding)
    shards, _ = encode(read(tars, **options), tmp_path / "other", captions=captions)
    torch.testing.assert_close(shards.info.colours, images.info.colours)
    assert (shards.info.size, shards.info.channels, shards.info.family) == (
        images.info.size,
        images.info.channels,
        images.info.family,
    )
    one, other = Loader(images, 3, 0, "data"), Loader(shards, 3, 0, "data")
    for index in range(10):
        same(one.batch(index), other.batch(index))
    assert name_of(shards, 8).endswith("नाम8.png)")


def test_models_that_know_classes(folder, tars, read, tmp_path):
    """Labels from .cls files, and the number behind the last for none; no captions are encoded."""
    captions = CaptionSettings(dropout=0.5)
    shards, encoders = encode(read(tars), tmp_path, FakeEncoders(classes=2), captions)
    labels = Loader(shards, 10, 0, "data").batch(0).conditioning["label"]
    assert encoders.captions == []
    assert set(labels.tolist()) == {0, 1, 2}


def test_each_is_encoded_once(tars, read, tmp_path):
    """Nothing the second time; other captions leave the latents; other cuts leave the captions."""
    _, encoders = encode(read(tars), tmp_path)
    assert encoders.pictures == 10
    assert len(encoders.captions) == 7 + 4  # and the empty one, in each of four shards
    encode(read(tars), tmp_path, encoders)
    assert (encoders.pictures, len(encoders.captions)) == (10, 11)
    encode(read(tars), tmp_path, encoders, CaptionSettings("word"))
    assert (encoders.pictures, len(encoders.captions)) == (10, 11 + 9 + 4)  # without one, the word alone
    encode(read(tars, crop="random"), tmp_path, encoders)
    assert (encoders.pictures, len(encoders.captions)) == (20, 24)


def test_an_encoding_that_is_stopped_goes_on(tars, read, tmp_path):
    """Shards that are done are there; of the others there is nothing, and a damaged one is made again."""
    encoders = FakeEncoders()
    encoders.stop_at = 5
    with pytest.raises(KeyboardInterrupt):
        encode(read(tars), tmp_path, encoders)
    made = sorted((tmp_path / "shards").glob("latents-*"))
    assert len(made) == 1
    encoders.pictures, encoders.stop_at = 0, None
    encode(read(tars), tmp_path, encoders)
    assert encoders.pictures == 7
    data = made[0] / store.DATA
    data.write_bytes(data.read_bytes()[:-1])
    encode(read(tars), tmp_path, encoders)
    assert encoders.pictures == 10


def test_captions_that_are_cut_are_told(tar, read, tmp_path):
    """By their pictures, as a folder's are; looked for among the longest, for there may be millions."""
    files = {}
    for number in range(6):
        text = "word " * (20 if number < 4 else 2)
        files |= {f"{number}.png": True, f"{number}.txt": text.encode()}
    encoders = FakeEncoders()
    encoders.longer_than_read = lambda captions: ([text for text in captions if len(text) > 60], 7)
    encoding = ShardEncoding(read(tar(files)), encoders, CaptionSettings(), Cache(tmp_path))
    assert cut_in_words(encoding) == [
        "of the 4 longest captions, 4 are longer than the 7 tokens that the encoder reads, and cut: 0.png, 1.png, "
        "2.png, 1 more"
    ]
    assert cut_in_words(encoding)[0] in shard_encoding_in_words(encoding)
    encoders.longer_than_read = lambda captions: ([], 7)
    assert cut_in_words(encoding) == []
    default = ShardEncoding(
        read(tar({"a.png": True}), default_caption=70 * "a"), encoders, CaptionSettings(), Cache(tmp_path)
    )
    encoders.longer_than_read = lambda captions: (captions, 7)
    assert cut_in_words(default)[0].startswith("of the 1 longest caption, 1 is longer")


def test_two_share_the_work(tars, read, tmp_path, monkeypatch):
    """Whoever has a shard's lock makes it, the other one the others; both have all at the end, each made once."""
    monkeypatch.setattr(store, "WAIT", 0.05)
    monkeypatch.setattr("comfyui_rollout.files.lock.LOOKS", 0.02)
    meet = threading.Barrier(2, timeout=20)
    both = [FakeEncoders(), FakeEncoders()]
    for encoders in both:
        plain = encoders.encode_images
        encoders.encode_images = lambda images, encoders=encoders, plain=plain: (
            meet.wait() if not encoders.pictures else None,
            plain(images),
        )[1]
    done = [None, None]

    def work(who):
        done[who] = encode(read(tars), tmp_path, both[who])[0]

    threads = [threading.Thread(target=work, args=(who,)) for who in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(encoders.pictures for encoders in both) == 10
    assert min(encoders.pictures for encoders in both) > 0
    assert not list((tmp_path / "shards" / store.LOCKS).iterdir())
    same(Loader(done[0], 4, 0, "data").batch(1), Loader(done[1], 4, 0, "data").batch(1))


def test_what_does_not_go_together_is_refused(tar, tars, read, tmp_path):
    """Before anything is loaded, by the input that has to change."""
    model = FakeEncoders()
    model.control = "must"
    for images, encoders, said in (
        (read(tars, color="L"), FakeEncoders(), "^color"),
        (read(tars, size=60), FakeEncoders(), "^size"),
        (read(tars), model, "^dataset"),
        (read(tars, buckets=True, size=128), FakeEncoders(classes=2), "^buckets"),
        (read(tar({"a.png": True})), FakeEncoders(classes=2), "no classes"),
    ):
        with pytest.raises(ValueError, match=said):
            encode(images, tmp_path / "cache", encoders)
    model.control, model.encode_images = "none", lambda images: F.avg_pool2d(images, 8) / 0
    with pytest.raises(ValueError, match=r"no finite numbers of .*नाम0\.png"):
        encode(read(tars), tmp_path / "cache", model)
