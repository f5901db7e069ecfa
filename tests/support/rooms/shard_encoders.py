"""Encoders that cost nothing, for shards, and what must be the same of two data sets."""

from contextlib import contextmanager

import torch
from comfyui_rollout.data.encodings.cache import Cache
from comfyui_rollout.data.reading.captions import CaptionSettings
from comfyui_rollout.data.shards.encoding import ShardEncoding
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


def same_batches(one, other):
    assert torch.equal(one.latents, other.latents)
    assert one.captions == other.captions
    assert torch.equal(one.conditioning["label"], other.conditioning["label"])
    assert (one.weight is None) == (other.weight is None)
