"""Which sizes images are cut to."""

from math import log

import pytest
from comfyui_rollout.data.reading.buckets import MOST_OBLONG, STEP, bucket_for, bucket_sizes, shape
from hypothesis import given
from hypothesis import strategies as st

sides = st.integers(1, 6000)


def test_buckets_of_the_size_that_sdxl_was_trained_at():
    """The sizes that people know from SDXL's paper, near 1024 x 1024, each in both directions."""
    known = {(1024, 1024), (960, 1088), (896, 1152), (832, 1216), (768, 1344), (704, 1408)}
    assert set(bucket_sizes(1024)) == known | {(width, height) for height, width in known}


def test_buckets_of_sd15():
    """At 512 the 2:1 bucket is the largest of that shape, not a smaller one of the same."""
    known = {(512, 512), (448, 576), (384, 640), (320, 640)}
    assert set(bucket_sizes(512)) == known | {(width, height) for height, width in known}


@given(st.integers(STEP, 3000))
def test_every_bucket_keeps_the_rules(size):
    """Sides in whole steps, no more pixels than asked for, not too oblong, one of each shape, a square among them."""
    buckets = bucket_sizes(size)
    for height, width in buckets:
        assert height % STEP == width % STEP == 0
        assert height * width <= size * size
        assert 1 / MOST_OBLONG <= height / width <= MOST_OBLONG
    assert len({shape(bucket) for bucket in buckets}) == len(buckets)
    assert (size // STEP * STEP,) * 2 in buckets
    assert sorted((width, height) for height, width in buckets) == sorted(buckets)


def test_a_size_below_one_step_is_refused():
    """It would have no bucket at all."""
    with pytest.raises(ValueError, match="size 32 is too small for buckets"):
        bucket_sizes(32)


@pytest.mark.parametrize(
    ("image", "bucket"),
    [((3000, 3000), (512, 512)), ((1080, 1920), (384, 640)), ((1920, 1080), (640, 384)), ((500, 9000), (320, 640))],
)
def test_an_image_goes_to_the_bucket_of_its_shape(image, bucket):
    """Landscape stays landscape; a panorama goes to the most oblong one."""
    assert bucket_for(image, bucket_sizes(512)) == bucket


@given(sides, sides)
def test_tall_and_wide_images_are_treated_alike(height, width):
    """Turning an image by a quarter changes nothing in how well its bucket fits."""
    buckets = bucket_sizes(512)
    tall, wide = bucket_for((height, width), buckets), bucket_for((width, height), buckets)
    assert abs(log(shape(tall) * width / height)) == pytest.approx(abs(log(shape(wide) * height / width)))


@given(sides, sides)
def test_without_upscaling_no_image_is_enlarged(height, width):
    """Its bucket fits into it, unless it is smaller than any bucket may be."""
    bucket = bucket_for((height, width), bucket_sizes(512), upscale=False)
    assert all(wanted <= max(side, STEP) for wanted, side in zip(bucket, (height, width), strict=True))
    assert all(side % STEP == 0 for side in bucket)
    assert 1 / MOST_OBLONG <= shape(bucket) <= MOST_OBLONG
    assert bucket[0] * bucket[1] <= 512 * 512


def test_small_images_get_smaller_buckets_on_request_only():
    """Enlarged like all others by default, which is what the usual trainers do."""
    buckets = bucket_sizes(512)
    assert bucket_for((300, 200), buckets) == (640, 384)
    assert bucket_for((300, 200), buckets, upscale=False) == (256, 192)
    assert bucket_for((3000, 2000), buckets, upscale=False) == (640, 384)


@pytest.mark.parametrize(("ratio", "widest"), [(1.0, (1024, 1024)), (2.4, (640, 1536)), (4.0, (512, 2048))])
def test_the_largest_aspect_ratio_can_be_chosen(ratio, widest):
    """SDXL's 640 x 1536 among them, and squares only at 1."""
    buckets = bucket_sizes(1024, ratio)
    assert min(buckets, key=shape) == widest
    assert all(max(bucket) <= ratio * min(bucket) for bucket in buckets)


def test_a_panorama_keeps_its_shape_where_it_may():
    """4000 x 500 in the bucket of its own shape; without upscaling too."""
    assert bucket_for((500, 4000), bucket_sizes(1024, 8.0)) == (320, 2560)
    assert bucket_for((130, 1040), bucket_sizes(1024, 8.0), upscale=False, most_oblong=8.0) == (128, 1024)
