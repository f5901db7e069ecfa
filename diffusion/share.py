"""One batch over several processes: which of its items are here, and how items are dealt so that all work alike.

The *global* batch is the unit of randomness: whatever is drawn for a batch is drawn for all of it, by every process,
and each takes what belongs to its items. So the same global batch has the same draws however it is split.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heapreplace

import torch
from torch import Tensor

from .device import picked


@dataclass(frozen=True)
class Share:
    """The items of a global batch that are here."""

    places: Tensor
    """Their places in the global batch (b,), ascending, int64 on the CPU."""
    total: int
    """How many items the global batch has."""

    @classmethod
    def whole(cls, total: int) -> Share:
        return cls(torch.arange(total), total)

    @property
    def is_whole(self) -> bool:
        return len(self.places) == self.total

    def of(self, values: Tensor) -> Tensor:
        """Of values for the whole global batch (total, ...), on any device, those of the items here (b, ...)."""
        if len(values) != self.total:
            raise ValueError(f"something was drawn for {len(values)} items, and the global batch has {self.total}")
        return values if self.is_whole else picked(values, self.places)

    def first(self, count: int) -> Tensor:
        """Which of the first ``count`` places of the global batch are here (n,): those of the first n items here."""
        return self.places[self.places < count]

    def among(self, chosen: Tensor) -> Share:
        """The share of a choice of the items: ``chosen`` (n,) are places in the global batch, ascending.

        Its places count within the choice.
        """
        if self.is_whole:
            return Share.whole(len(chosen))
        return Share(torch.isin(chosen, self.places).nonzero().flatten(), len(chosen))

    def repeated(self, times: int) -> Share:
        """The share of a batch in which every item comes so many times, one behind the other."""
        places = self.places[:, None] * times + torch.arange(times)
        return Share(places.flatten(), self.total * times)

    def followed_by(self, more: Share) -> Share:
        """The share of a batch, and of another one behind it."""
        return Share(torch.cat([self.places, self.total + more.places]), self.total + more.total)


def dealt_in_turn(total: int, processes: int) -> list[Tensor]:
    """Item i goes to process i modulo ``processes``: always to the same one."""
    return [torch.arange(rank, total, processes) for rank in range(processes)]


def dealt_evenly(work: Sequence[float] | Tensor, processes: int) -> list[Tensor]:
    """Equally many items for each process, so that their work is about the same; places are ascending.

    Longest processing time first (Graham, 1969), with room for ``len(work) / processes`` items each: the item with most
    work goes to the process that has least so far. A pure function of its arguments.
    """
    costs = torch.as_tensor(work, dtype=torch.float64)
    room = len(costs) // processes
    hands: list[list[int]] = [[] for _ in range(processes)]
    least = [(0.0, rank) for rank in range(processes)]
    heapify(least)
    for place in torch.argsort(costs, descending=True, stable=True).tolist():
        load, rank = least[0]
        hands[rank].append(place)
        full = len(hands[rank]) == room
        heapreplace(least, (float("inf") if full else load + float(costs[place]), rank))
    return [torch.tensor(sorted(hand), dtype=torch.int64) for hand in hands]
