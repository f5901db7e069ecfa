"""Shares of a global batch: what was drawn for all reaches whom it belongs to, and items are dealt fairly."""

import pytest
import torch
from comfyui_rollout.diffusion.share import Share, dealt_evenly, dealt_in_turn
from hypothesis import given
from hypothesis import strategies as st


def shares(hands):
    return [Share(hand, sum(map(len, hands))) for hand in hands]


@given(st.lists(st.integers(0, 20), min_size=1, max_size=12), st.integers(1, 5))
def test_every_item_is_dealt_once_and_everybody_has_as_many(lengths, processes):
    """Whatever their work is; places are ascending, so that the order among a process's items is that of the batch."""
    for hands in (dealt_evenly(lengths * processes, processes), dealt_in_turn(len(lengths) * processes, processes)):
        assert [len(hand) for hand in hands] == [len(lengths)] * processes
        assert torch.equal(torch.cat(hands).sort().values, torch.arange(len(lengths) * processes))
        assert all(torch.equal(hand, hand.sort().values) for hand in hands)


def test_the_longest_are_spread_first():
    """Longest processing time first: naive halves would have 19 and 3."""
    hands = dealt_evenly([9, 8, 1, 1, 1, 1, 1, 0], 2)
    work = torch.tensor([9, 8, 1, 1, 1, 1, 1, 0])
    assert sorted(int(work[hand].sum()) for hand in hands) == [11, 11]


@given(st.lists(st.booleans(), min_size=8, max_size=8), st.integers(1, 3))
def test_parts_of_a_choice_are_the_choice_of_parts(chosen, times):
    """What is drawn for some items of the global batch, or several times for each, is shared as the items are."""
    values, places = torch.arange(8) * 10, torch.tensor(chosen).nonzero().flatten()
    drawn = torch.arange(len(places) * times) + 100
    found = {}
    for share in shares(dealt_evenly([3, 1, 4, 1, 5, 9, 2, 6], 2)):
        some = share.among(places)
        own = [int(value) for value in share.of(values) if int(value) // 10 in places.tolist()]
        assert own == [int(value) for value in some.of(values[places])]
        for item, value in zip(
            [item for item in own for _ in range(times)], some.repeated(times).of(drawn), strict=True
        ):
            found.setdefault(item, []).append(int(value))
    expected = {int(place) * 10: (drawn[row * times : (row + 1) * times]).tolist() for row, place in enumerate(places)}
    assert found == expected


def test_a_draw_for_another_batch_is_refused():
    """It would be dealt wrongly, in silence."""
    with pytest.raises(ValueError, match="drawn for 3 items, and the global batch has 4"):
        Share(torch.tensor([0, 2]), 4).of(torch.zeros(3))


def test_what_comes_behind_counts_on():
    """Copies beside their items: places of the second batch come after all of the first."""
    both = Share(torch.tensor([1, 2]), 4).followed_by(Share(torch.tensor([0]), 3))
    assert (both.places.tolist(), both.total) == ([1, 2, 4], 7)
