"""Texts of several lengths, in a batch of which several processes have parts."""

import pytest
import torch
from comfyui_rollout.data.encodings.texts import beside_others, concatenated, shapes_of


def masked(length, value):
    """A caption of that many tokens."""
    return {"text": torch.full((1, length, 3), value), "mask": torch.ones(1, length, dtype=torch.bool)}


def windows(count, value):
    """What CLIP makes of a caption of so many windows of two tokens."""
    return {"text": torch.full((1, 2 * count, 3), value), "pooled": torch.full((1, 5), value)}


@pytest.mark.parametrize(
    "told",
    [
        [masked(3, 1.0), masked(5, 2.0), masked(2, 3.0), masked(4, 4.0)],
        [windows(1, 1.0), windows(2, 2.0), windows(3, 3.0), windows(1, 4.0)],
        [windows(1, 1.0), windows(1, 2.0), windows(1, 3.0), windows(1, 4.0)],
    ],
    ids=["with a mask", "windows", "of one length"],
)
def test_a_part_of_a_batch_is_told_what_the_whole_is(told):
    """To the bit: padded, or repeated, as if all texts stood together. So chains of one length meet again."""
    whole = concatenated(told)
    parts = [concatenated(told[:2]), concatenated(told[2:])]
    shapes = [shapes_of(part) for part in parts]
    for place, part in enumerate(parts):
        found = beside_others(part, shapes)
        assert found.keys() == whole.keys()
        for name, value in found.items():
            assert torch.equal(value, whole[name][2 * place : 2 * place + 2]), name
