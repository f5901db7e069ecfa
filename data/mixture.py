"""Several data sets as one: every batch comes from one of them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

from torch import Generator

from .data import Batch, Dataset, DatasetInfo, Group, Numbers, held_out


class Mixture:
    """``weights`` say how often batches come from each data set, whatever the numbers of their images.

    Raises ValueError where they cannot train the same model.
    """

    def __init__(self, datasets: Sequence[Dataset], weights: Sequence[float]) -> None:
        self.datasets = list(datasets)
        infos = [dataset.info for dataset in datasets]
        for info in infos[1:]:
            refuse_unless_alike(infos[0], info)
        *starts, count = accumulate((info.count for info in infos), initial=0)
        self.starts = starts
        groups = [
            group
            for number, (info, start, weight) in enumerate(zip(infos, starts, weights, strict=True), 1)
            for group in groups_of(info, start, weight, f"{number}. {info.name}")
        ]
        sizes = {info.size for info in infos}
        self.info = replace(
            infos[0],
            name=" + ".join(info.name for info in infos),
            count=count,
            size=sizes.pop() if len(sizes) == 1 else None,
            groups=tuple(groups),
            colours=next((info.colours for info in infos if info.colours is not None), None),
        )
        kept = [found for dataset in datasets if (found := held_out(dataset)) is not None]
        self.held_out = Mixture(kept, [1.0] * len(kept)) if kept else None

    def batch(self, items: list[int], generators: Sequence[Generator]) -> Batch:
        which = bisect_right(self.starts, items[0]) - 1  # the items of a batch are of one group, so of one data set
        return self.datasets[which].batch([item - self.starts[which] for item in items], generators)

    def origin(self, item: int) -> tuple[Dataset, int]:
        """The data set that an item is of, and its number there."""
        which = bisect_right(self.starts, item) - 1
        return self.datasets[which], item - self.starts[which]


def groups_of(info: DatasetInfo, start: int, weight: float, name: str) -> list[Group]:
    """The groups of one of several data sets, together of that ``weight``; its items are numbered from ``start``."""
    groups = info.groups or (Group("", range(info.count), info.count, 1.0),)
    total = sum(group.weight for group in groups)
    return [
        replace(
            group,
            name=f"{name} {group.name}".strip(),
            items=Numbers(group.items, start),
            weight=weight * group.weight / total,
        )
        for group in groups
    ]


def refuse_unless_alike(first: DatasetInfo, other: DatasetInfo) -> None:
    """Raises ValueError where one model could not be trained on both."""
    for what, here, there in (
        ("encoder", first.family or "none", other.family or "none"),
        ("number of channels", first.channels, other.channels),
        ("list of classes", ", ".join(first.classes) or "none", ", ".join(other.classes) or "none"),
    ):
        if here != there:
            raise ValueError(
                f"the data sets {first.name!r} and {other.name!r} do not go together: their {what} differs "
                f"({here}, {there})"
            )
