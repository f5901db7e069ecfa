"""The options that folders and shards of pictures share."""

import pytest
import torch
from comfyui_rollout.data.reading.options import ImageOptions


def test_without_buckets_all_have_one_size():
    """A square of the size, to which small pictures are enlarged, whatever upscale says: that is of buckets."""
    square = ImageOptions(size=64, upscale=False)
    assert square.sizes(64) == [(64, 64)]
    assert square.enlarges
    assert not ImageOptions(buckets=True, upscale=False).enlarges


def test_buckets_keep_oblong_pictures_oblong():
    """Of about as many pixels as the square, no more oblong than was asked for."""
    options = ImageOptions(size=512, buckets=True, max_aspect_ratio=2.0)
    sizes = options.sizes(512)
    assert (512, 512) in sizes
    assert all(max(size) / min(size) <= 2 for size in sizes)
    height, width = options.bucket((300, 600), sizes)
    assert height < width


@pytest.mark.parametrize(("flip", "share"), [(False, 0), (True, 0.5)])
def test_half_of_the_pictures_are_mirrored(flip, share):
    options, generator = ImageOptions(flip=flip), torch.Generator().manual_seed(0)
    mirrored = sum(options.mirrors(generator) for _ in range(1000)) / 1000
    assert mirrored == pytest.approx(share, abs=0.05)


def test_no_place_is_drawn_where_none_is_needed():
    """A random crop draws two numbers, a centred one none, so that turning it on changes no other picture's."""
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    ImageOptions(crop="center").place(generator)
    assert torch.equal(generator.get_state(), before)
    ImageOptions(crop="random").place(generator)
    assert not torch.equal(generator.get_state(), before)
