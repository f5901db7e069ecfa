"""Texts of unequal length in one batch: filled up, and cut out again."""

import pytest
import torch
from comfyui_rollout.models.ragged import collate, padded_texts, separate, texts_of
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close


def item(length, pooled=True, number=1.0):
    told = {"text": torch.randn(1, length, 3), "number": torch.tensor([number])}
    return told | ({"pooled": torch.randn(1, 4)} if pooled else {})


@given(st.lists(st.tuples(st.integers(1, 5), st.booleans()), min_size=1, max_size=4))
def test_what_goes_in_comes_out(shapes):
    """To the bit, whatever the lengths, and where an item lacks something."""
    items = [item(length, pooled) for length, pooled in shapes]
    back = separate(collate(items), len(items))
    assert [found.keys() for found in back] == [given.keys() for given in items]
    for found, given_ in zip(back, items, strict=True):
        for name, value in given_.items():
            assert_close(found[name], value, rtol=0, atol=0)


def test_equal_items_are_put_together_and_nothing_else():
    """No sizes come along, so that nobody has to wait for the device."""
    together = collate([item(3), item(3)])
    assert set(together) == {"text", "number", "pooled"}
    assert together["text"].shape == (2, 3, 3)


def test_a_batch_may_be_sorted_and_cut():
    """As rollouts do: sizes go with their items."""
    items = [item(2), item(5), item(1)]
    together = collate(items)
    chosen = {name: value[[2, 0]] for name, value in together.items()}
    for found, place in zip(separate(chosen, 2), (2, 0), strict=True):
        assert_close(found["text"], items[place]["text"], rtol=0, atol=0)


def test_numbers_are_said_of_all_or_of_none():
    """A number has no size that could say that it is not there."""
    with pytest.raises(ValueError, match="not all have number"):
        collate([item(1), {"text": torch.randn(1, 1, 3)}])


def test_texts_come_back_at_their_own_lengths():
    """What is padded is False in the mask, and gone again for networks that take lists."""
    texts = [torch.randn(length, 4) for length in (3, 1, 5)]
    told = padded_texts(texts)
    assert told["text"].shape == (3, 5, 4)
    assert told["mask"].sum(1).tolist() == [3, 1, 5]
    assert not told["text"][~told["mask"]].any()
    assert all(torch.equal(back, text) for back, text in zip(texts_of(told), texts, strict=True))
