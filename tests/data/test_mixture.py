"""Several data sets as one."""

from dataclasses import replace

import pytest
import torch
from comfyui_rollout.data.data import Batch, DatasetInfo, Group, Loader, plan_batch, whole_batches
from comfyui_rollout.data.mixture import Mixture


class Named:
    """Items are numbers from ``first`` on; in groups, if there are any."""

    def __init__(self, name, count, first=0, groups=(), **facts):
        self.first = first
        self.info = DatasetInfo(name, count, 1, 1, groups=groups)
        self.info = replace(self.info, **facts)

    def batch(self, items, generators):
        assert all(0 <= item < self.info.count for item in items)
        return Batch(torch.tensor(items).float().reshape(-1, 1, 1, 1) + self.first, {})


def drawn(mixture, batches, batch_size=2):
    loader = Loader(mixture, batch_size, 0, "data")
    return [loader.batch(index).latents.flatten().tolist() for index in range(batches)]


def test_every_batch_comes_from_one_data_set():
    """DreamBooth: photos and class images take turns, whatever their numbers."""
    batches = drawn(Mixture([Named("photos", 4), Named("class", 50, 100)], [1, 1]), 50)
    assert [min(batch) >= 100 for batch in batches] == [max(batch) >= 100 for batch in batches] == [False, True] * 25


def test_weights_are_shares_of_the_batches():
    """Three to one is three to one in every stretch of four."""
    batches = drawn(Mixture([Named("a", 5), Named("b", 5, 100)], [1.5, 0.5]), 40)
    from_b = [min(batch) >= 100 for batch in batches]
    assert all(sum(from_b[start : start + 4]) == 1 for start in range(0, 40, 4))


def test_each_data_set_goes_through_its_own_epochs():
    """Every image comes as often as its neighbours."""
    batches = drawn(Mixture([Named("a", 6), Named("b", 4, 100)], [2, 1]), 30)
    items = sorted(item for batch in batches for item in batch)
    assert {items.count(item) for item in range(6)} in ({6, 7}, {7, 6}, {6}, {7})
    assert {items.count(item) for item in range(100, 104)} == {5}


def test_buckets_stay_together():
    """The groups of a data set share its weight by their numbers of images."""
    groups = (Group("wide", (0, 1, 2), 3, 3), Group("tall", (3,), 1, 1))
    mixture = Mixture([Named("a", 4, groups=groups), Named("b", 4, 100)], [1, 1])
    assert [(group.name, tuple(group.items), group.weight) for group in mixture.info.groups] == [
        ("1. a wide", (0, 1, 2), 0.75),
        ("1. a tall", (3,), 0.25),
        ("2. b", (4, 5, 6, 7), 1.0),
    ]
    batches = drawn(mixture, 80)
    kinds = ["tall" if 3 in batch else "wide" if max(batch) < 3 else "other" for batch in batches]
    assert all(batch == [3, 3] for batch, kind in zip(batches, kinds, strict=True) if kind == "tall")
    assert [kinds.count(kind) for kind in ("wide", "tall", "other")] == [30, 10, 40]


def test_batches_are_a_function_of_their_number():
    """A resumed run goes on with the batches that it would have seen."""
    info = Mixture([Named("a", 6), Named("b", 4)], [2, 1]).info
    once = [plan_batch(info, 2, index, 0, "data") for index in range(20)]
    assert [plan_batch(info, 2, index, 0, "data") for index in reversed(range(20))] == once[::-1]
    assert [plan_batch(info, 2, index, 1, "data") for index in range(20)] != once


def test_a_mixture_of_mixtures_is_one(numbered):
    """Nothing but data sets is known of the parts."""
    inner = Mixture([Named("a", 2), Named("b", 2, 10)], [1, 1])
    batches = drawn(Mixture([inner, Named("c", 2, 20)], [1, 1]), 40)
    kinds = [int(batch[0]) // 10 for batch in batches]
    assert [kinds.count(kind) for kind in range(3)] == [10, 10, 20]


def test_what_is_known_of_it():
    """All items, one size if they share it, and the colours of the first that has some."""
    colours = torch.ones(2, 3)
    first, second = Named("a", 6), Named("b", 4, colours=colours)
    info = Mixture([first, second], [2, 1]).info
    assert (info.name, info.count, info.channels, info.size) == ("a + b", 10, 1, 1)
    assert info.colours is colours
    assert Mixture([first, Named("c", 1, size=2)], [1, 1]).info.size is None


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"channels": 4}, r"number of channels differs \(1, 4\)"),
        ({"family": "sd"}, r"encoder differs \(none, sd\)"),
        ({"classes": ("cat",)}, r"list of classes differs \(none, cat\)"),
    ],
)
def test_data_sets_for_different_models_are_refused(facts, words):
    """One line that names both."""
    with pytest.raises(ValueError, match=rf"'a' and 'b' do not go together: their {words}"):
        Mixture([Named("a", 2), Named("b", 2, **facts)], [1, 1])


def test_what_its_parts_keep_back_it_keeps_back_too():
    """All of it, and nothing where no part does."""
    first, second, third = Named("a", 6), Named("b", 4), Named("c", 3)
    assert Mixture([first, second], [1, 1]).held_out is None
    first.held_out, second.held_out = Named("a", 2, 10), Named("b", 1, 20)
    kept = Mixture([first, second, third], [1, 5, 1]).held_out
    assert list(whole_batches(kept.info, 2)) == [[0, 1], [2]]
