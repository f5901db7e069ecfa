"""Encoders that cost nothing, for folders of pictures."""

from contextlib import contextmanager

import torch
from comfyui_rollout.data.encodings.encoding import Encoding
from comfyui_rollout.data.reading.captions import CaptionSettings
from comfyui_rollout.data.reading.images import ImageFolder
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


def encoding(folder, cache, encoders, captions=None, **options):
    images = ImageFolder(folder, **{"size": 64, **options})
    return Encoding(images, encoders, captions or CaptionSettings(), cache)


def encode(folder, cache, encoders=None, advance=lambda done, total: None, **options):
    """The encoded data set, and what the encoders had to do for it."""
    encoders = encoders or FakeEncoders()
    return encoding(folder, cache, encoders, **options).run("cpu", advance), encoders
