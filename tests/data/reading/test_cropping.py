"""A picture is cut where it is said, and becomes latents."""

import numpy as np
import pytest
import torch
from comfyui_rollout.data.reading.cropping import corner_of, fit, place_of, to_latents
from comfyui_rollout.data.reading.pictures import read_image
from PIL import Image


def test_latents_span_minus_one_to_one(paint):
    """Black is -1, white 1, channels first."""
    assert to_latents(read_image(paint("a.png", (0, 255, 255)))).flatten(1).mean(1).tolist() == [-1, 1, 1]


@pytest.mark.parametrize(("width", "height"), [(12, 4), (4, 12), (4, 4), (3, 2)])
def test_every_picture_becomes_a_square(paint, width, height):
    """Oblong and small pictures are resized by their shorter side and cut, not squeezed."""
    assert fit(read_image(paint("a.png", size=(width, height))), (8, 8), (0.5, 0.5)).size == (8, 8)


def test_the_centre_crop_is_the_middle(strip, generator):
    """Of a strip of three colours the middle one is left, and nothing is drawn for it."""
    before = generator.get_state()
    assert fit(strip(), (8, 8), place_of("center", generator)).getpixel((4, 4)) == (0, 128, 0)
    assert torch.equal(generator.get_state(), before)


def test_random_crops_move_and_repeat_with_their_generator(strip):
    """Every look at an image may differ, and the same seed gives the same looks."""

    def looks(seed):
        generator = torch.Generator().manual_seed(seed)
        return [fit(strip(), (8, 8), place_of("random", generator)).tobytes() for _ in range(4)]

    assert len(set(looks(0))) > 1
    assert looks(0) == looks(0) != looks(1)


@pytest.mark.parametrize("place", [(0.5, 0.5), (0.0, 1.0), (0.3, 0.9)])
@pytest.mark.parametrize("size", [(60, 40), (40, 60), (33, 77)])
def test_the_corner_says_what_was_cut_off(size, place):
    """Cutting the resized picture at that corner gives what was trained, to a pixel."""
    ramp = np.add.outer(np.arange(200.0), np.arange(120.0)).astype(np.float32)
    picture = Image.fromarray(ramp)
    height, width = size
    top, left = corner_of((200, 120), size, place)
    scale = max(height / 200, width / 120)
    resized = picture.resize((round(120 * scale), round(200 * scale)), Image.Resampling.LANCZOS)
    expected = np.asarray(resized)[top : top + height, left : left + width]
    assert np.abs(np.asarray(fit(picture, size, place)) - expected).max() < 2 / scale
