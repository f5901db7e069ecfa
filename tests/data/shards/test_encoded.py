"""Encoded shards as a data set: what a folder of the same files gives."""

import pytest
import torch
from comfyui_rollout.data.data import Loader
from comfyui_rollout.data.encodings.encoding import Encoding
from comfyui_rollout.data.names import name_of
from comfyui_rollout.data.reading.captions import CaptionSettings
from comfyui_rollout.data.reading.images import ImageFolder
from shard_encoders import FakeEncoders, encode, same


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
