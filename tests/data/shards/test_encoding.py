"""Encode once, shard by shard: what a folder of the same files gives, made once whoever makes it."""

import pytest
from comfyui_rollout.data.encodings.cache import Cache
from comfyui_rollout.data.reading.captions import CaptionSettings
from comfyui_rollout.data.shards import store
from comfyui_rollout.data.shards.encoding import ShardEncoding
from shard_encoders import FakeEncoders, encode
from torch.nn import functional as F


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


def test_what_is_missing_is_counted_with_its_bytes(tars, read, tmp_path):
    """Each picture's latents, mirrored ones too; shards that are done count no more."""
    images, encoders = read(tars, size=64, flip=True), FakeEncoders()
    asked = ShardEncoding(images, encoders, CaptionSettings(), Cache(tmp_path))
    both = 2 * 4 * 3 * 8 * 8
    assert (asked.missing, asked.missing_bytes) == (10 + 20, 10 * both)
    encoders.stop_at = 6
    with pytest.raises(KeyboardInterrupt):
        encode(images, tmp_path, encoders)
    again = ShardEncoding(images, FakeEncoders(), CaptionSettings(), Cache(tmp_path))
    assert (again.missing, again.missing_bytes) == (2 * 7, 7 * both)
