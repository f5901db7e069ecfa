"""Aspect-ratio buckets: images of a similar shape are cut to the same size, so that they can share a batch.

The rule of the usual trainers (sd-scripts and those that follow it): sides are multiples of 64 pixels, areas about the
same for all, and an image goes where least of it is cut away.
"""

from __future__ import annotations

from fractions import Fraction
from math import log

Size = tuple[int, int]
"""Height and width in pixels."""

STEP = 64
MOST_OBLONG = 2.0
"""How many times as long as it is wide a bucket may be, unless the user says otherwise."""


def bucket_sizes(size: int, most_oblong: float = MOST_OBLONG) -> list[Size]:
    """The buckets of at most ``size * size`` pixels, from the flattest to the tallest; of each shape the largest.

    ``most_oblong`` (1 or more) is the largest ratio of their sides. Raises ValueError for a size too small to have one.
    """
    if size < STEP:
        raise ValueError(f"size {size} is too small for buckets, whose sides are multiples of {STEP}: raise it")
    square = size // STEP * STEP
    largest = {Fraction(1): (square, square)}
    for short in range(STEP, size + 1, STEP):
        long = min(size * size // short, int(most_oblong * short)) // STEP * STEP
        if long > short:
            largest |= {Fraction(short, long): (short, long), Fraction(long, short): (long, short)}
    return [largest[ratio] for ratio in sorted(largest)]


def bucket_for(image: Size, buckets: list[Size], upscale: bool = True, most_oblong: float = MOST_OBLONG) -> Size:
    """The bucket whose shape is nearest to the image's.

    Without ``upscale`` an image that is smaller than that goes into a bucket of its own size, rounded down to multiples
    of 64; only an image below 64 pixels is still enlarged.
    """
    nearest = min(buckets, key=lambda bucket: abs(log(shape(bucket) / shape(image))))
    if upscale or not is_smaller(image, nearest):
        return nearest
    height, width = (max(STEP, side // STEP * STEP) for side in image)
    return min(height, multiple(most_oblong * width)), min(width, multiple(most_oblong * height))


def multiple(length: float) -> int:
    """The length in whole steps, rounded down."""
    return int(length) // STEP * STEP


def shape(size: Size) -> float:
    """Height over width."""
    return size[0] / size[1]


def is_smaller(image: Size, size: Size) -> bool:
    """Whether the image must be enlarged to fill that size."""
    return image[0] < size[0] or image[1] < size[1]
