"""A folder of pictures of several sizes, and a cache for it."""

import numpy as np
import pytest
from comfyui_rollout.data.encodings.cache import Cache
from PIL import Image


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
