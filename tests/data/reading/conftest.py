"""Pictures as people have them, for the tests of reading."""

import numpy as np
import pytest
import torch
from PIL import Image


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def paint(tmp_path):
    """``paint("a/cat.png", "red", size=(4, 4))`` saves a picture of one colour below the test's folder."""

    def save(name, colour="red", size=(4, 4), mode="RGB", **options):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new(mode, size, colour).save(path, **options)
        return path

    return save


@pytest.fixture
def noise_picture():
    """A picture of noise (64 x 64), which no file format can make small."""
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def cut_short():
    """``cut_short(path)`` leaves half of a file."""

    def cut(path, share=0.5):
        whole = path.read_bytes()
        path.write_bytes(whole[: int(len(whole) * share)])
        return path

    return cut


@pytest.fixture
def strip():
    """``strip(("red", "blue"))``: a picture of stripes, 8 pixels each."""

    def make(colours=("red", "green", "blue")):
        picture = Image.new("RGB", (len(colours) * 8, 8))
        for place, colour in enumerate(colours):
            picture.paste(colour, (place * 8, 0, place * 8 + 8, 8))
        return picture

    return make
