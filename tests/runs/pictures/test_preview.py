"""Latents as pictures."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from comfyui_rollout.diffusion.rollout import noisy_batch
from comfyui_rollout.diffusion.schedules import FlowMatching
from comfyui_rollout.runs.pictures.preview import (
    GAP,
    MARGIN,
    MIN_CELL,
    MOST_ITEMS,
    colours_of,
    grid,
    picture_of_latents,
    picture_of_rollout,
    to_rgb,
)
from comfyui_rollout.training.stream import Run, Stream


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 16])
def test_latents_of_any_kind_become_colours(channels):
    """Pixels, grey or RGB, and the latents of every autoencoder can be looked at."""
    colours = to_rgb(torch.randn(2, channels, 4, 4, dtype=torch.bfloat16, requires_grad=True))
    assert colours.shape == (2, 3, 4, 4)
    assert colours.dtype == torch.float32
    assert not colours.requires_grad
    assert 0 <= float(colours.min()) <= float(colours.max()) <= 1


def test_grey_spans_black_to_white():
    """-1 is black, 1 is white, beyond is cut off."""
    latents = torch.tensor([-2.0, -1, 0, 1, 2]).reshape(5, 1, 1, 1)
    assert to_rgb(latents)[:, 0].flatten().tolist() == [0, 0, 0.5, 1, 1]


def test_tiny_latents_are_enlarged_pixel_by_pixel():
    """8x8 latents would be a dot; enlarged, their pixels stay sharp."""
    picture = np.asarray(picture_of_latents(torch.tensor([[[[-1.0, 1.0], [1.0, -1.0]]]])))
    half = MIN_CELL // 2
    assert picture.shape == (MIN_CELL, MIN_CELL, 3)
    assert (picture[:half, :half] == 0).all()
    assert (picture[:half, half:] == 255).all()


def test_large_latents_keep_their_size():
    """Nothing is scaled that is large enough."""
    assert picture_of_latents(torch.zeros(1, 3, 100, 100)).size == (100, 100)


def test_pictures_fill_the_grid_row_by_row():
    """The place of a picture tells which item it is; the last row may be short."""
    shades = torch.linspace(0, 1, 5).reshape(5, 1, 1, 1).expand(5, 3, MIN_CELL, MIN_CELL)
    sheet = np.asarray(grid(shades, 3))
    step = MIN_CELL + GAP
    assert sheet.shape == (2 * step - GAP, 3 * step - GAP, 3)
    found = [sheet[row * step, column * step, 0] for row, column in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]]
    assert found == [0, 64, 128, 191, 255]


def test_a_preview_shows_the_first_few_only():
    """A batch of 4096 is no picture."""
    width = MOST_ITEMS * (MIN_CELL + GAP) - GAP
    assert picture_of_latents(torch.zeros(50, 1, 8, 8)).size == (width, MIN_CELL)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    latents, noise = (torch.randn(3, 1, 8, 8, generator=generator) for _ in range(2))
    return noisy_batch(latents, noise, torch.tensor([100.0, 500.0, 900.0]).double(), FlowMatching(), {})


def rows_of(picture, items):
    sheet = np.asarray(picture)[:, MARGIN:]
    assert sheet.shape == (3 * (MIN_CELL + GAP) - GAP, items * (MIN_CELL + GAP) - GAP, 3)
    step = MIN_CELL + GAP
    return [[sheet[row * step, place * step, 0] for place in range(items)] for row in range(3)]


def test_the_rollout_picture_puts_the_longest_first(batch):
    """Above teacher-forced, then rolled out, then the difference stretched to the full range."""
    lengths = torch.tensor([0, 3, 1])
    flat = torch.tensor([0.0, 0.5, -0.5]).reshape(3, 1, 1, 1).expand_as(batch.x)
    rolled = flat + torch.tensor([0.0, 0.25, -0.125]).reshape(3, 1, 1, 1)
    batch = replace(batch, lengths=lengths, teacher_forced=flat, x=rolled)
    forced, drifted, difference = rows_of(picture_of_rollout(batch), 3)
    assert forced == [191, 64, 128]
    assert drifted == [223, 48, 128]
    assert difference == [255, 64, 128]


def test_a_batch_without_rollouts_has_no_difference(batch):
    """Nothing to stretch is no division by zero: the difference is plain grey."""
    assert rows_of(picture_of_rollout(batch), 3)[2] == [128] * 3


@pytest.fixture
def colours():
    """A map for two channels: the first is red, the second blue, none of them green."""
    return torch.tensor([[0.5, 0.0, 0.0], [0.0, 0.0, -0.25], [0.5, 0.25, 0.5]])


def test_a_data_sets_own_map_makes_the_colours(colours):
    """Latents of any autoencoder look like the picture; what lies beyond the range is cut off."""
    latents = torch.tensor([[0.0, 0.0], [1.0, 2.0], [-4.0, 0.0]]).reshape(3, 2, 1, 1)
    found = to_rgb(latents.to(torch.bfloat16), colours).reshape(3, 3)
    torch.testing.assert_close(found, torch.tensor([[0.5, 0.25, 0.5], [1.0, 0.25, 0.0], [0.0, 0.25, 0.5]]))


def test_a_map_for_other_latents_is_not_used(colours):
    """A model made from scratch on pixels beside an encoded data set still has a picture."""
    latents = torch.randn(2, 3, 4, 4)
    assert torch.equal(to_rgb(latents, colours), to_rgb(latents))


def test_no_difference_is_grey_in_every_map(batch, colours):
    """The rollout picture's third row shows a difference, which has no brightness of its own."""
    latents = torch.zeros(3, 2, 8, 8)
    batch = replace(batch, teacher_forced=latents, x=latents)
    sheet = np.asarray(picture_of_rollout(batch, colours))[:, MARGIN:]
    step = MIN_CELL + GAP
    assert sheet[0, 0].tolist() == sheet[step, 0].tolist() == [128, 64, 128]
    assert sheet[2 * step, 0].tolist() == [128, 128, 128]
    assert picture_of_latents(latents, colours=colours).getpixel((0, 0)) == (128, 64, 128)


def test_a_run_knows_the_colours_of_its_data_set():
    """Any stream may say them; the first one that does is heard, and a run without them has none."""
    colours = torch.ones(5, 3)
    data = Stream(lambda step: None, about=SimpleNamespace(colours=colours))
    other = Stream(lambda step: None, {"data": data}, about=SimpleNamespace(colours=None))
    assert colours_of(Run(Stream(lambda step, other: None, {"other": other}))) is colours
    assert colours_of(Run(other.inputs["data"])) is colours
    assert colours_of(Run(Stream(lambda step: None, about="anything"))) is None
