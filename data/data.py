"""Data sets, and which items make up the batch of a step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import floor
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Generator, Tensor
from torch.nn import functional as F

from ..diffusion import seeds
from ..diffusion.device import moved
from ..diffusion.share import Share
from ..diffusion.solvers import Conditioning
from ..models.model import NO_CLASS
from ..models.vae_preview import VaePreviews
from ..training.stream import Step
from .encodings.texts import beside_others, shapes_of


class Numbers(Sequence[int]):
    """Numbers of items, kept as they are (an array takes 8 bytes for each) and counted from ``start``."""

    def __init__(self, numbers: Sequence[int] | np.ndarray, start: int = 0) -> None:
        self.numbers, self.start = numbers, start

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, place: int) -> int:  # type: ignore[override]  # nobody slices them
        return self.start + int(self.numbers[place])


@dataclass(frozen=True)
class Group:
    """Items that may share a batch, such as those of one size."""

    name: str
    """Unique among the groups of a data set: the order of the items is drawn by it."""
    items: Sequence[int]
    """Their numbers, without repeats; only counted and looked up, for there may be millions."""
    count: int
    """How many there are in an epoch, repeats included: a multiple of ``len(items)``."""
    weight: float
    """How often batches come from this group, relative to the others."""


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a data set before training starts."""

    name: str
    count: int
    """Items, repeats included."""
    channels: int
    size: int | None
    """Height and width of the latents; None where they are not all squares of one size."""
    classes: tuple[str, ...] = ()
    """Names of the class labels; empty where there are none."""
    without_classes: str = ""
    """Where there are none although there are sub-folders: the reason and the remedy, for who needs classes."""
    family: str = ""
    """The family of pretrained models whose encoders made the latents; empty for pixels."""
    groups: tuple[Group, ...] = ()
    """Which items may share a batch; empty where all may."""
    colours: Tensor | VaePreviews | None = field(default=None, compare=False)
    """What the latents look like: a linear map (channels + 1, 3) to red, green and blue in 0..1, whose last row is
    added, or a VAE. None for pixels, and where it is not known."""


@dataclass(frozen=True)
class Batch:
    """Clean latents (B, C, H, W) in about -1..1, with what the network is told about them."""

    latents: Tensor
    conditioning: Conditioning
    captions: tuple[str, ...] = ()
    mask: Tensor | None = None
    """Where the loss looks (B, 1, H, W), 0..1; None = everywhere."""
    weight: Tensor | None = None
    """How much each item's loss counts (B,); None = 1."""
    negative: Callable[[], Conditioning] | None = None
    """Makes the rows (1, ...), on the CPU, that stand for no caption or class; None = it is not known what does."""
    dealt: Share | None = None
    """Which items of the global batch these are; None = all."""

    @property
    def share(self) -> Share:
        return self.dealt or Share.whole(len(self.latents))

    def to(self, device: torch.device) -> Batch:
        return self._each(lambda value: moved(value, device))

    def pinned(self) -> Batch:
        """In memory from which a GPU copies while the program goes on."""
        return self._each(lambda value: value.pin_memory())

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        return replace(
            self,
            latents=change(self.latents),
            conditioning={name: change(value) for name, value in self.conditioning.items()},
            mask=None if self.mask is None else change(self.mask),
            weight=None if self.weight is None else change(self.weight),
        )


@dataclass(frozen=True)
class ItemGenerators(Sequence[Generator]):
    """A generator for each item of a batch, keyed by the item's position in the whole run.

    Not by the batch: whoever reads a part of it draws the same numbers for its items.
    """

    seed: int
    name: str
    first: int
    """The position of the batch's first item, counted from the start of the run."""
    length: int
    places: Sequence[int] | None = None
    """Which of the batch's items are read; None = the first ``length``, all of them."""

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, place: int) -> Generator:  # type: ignore[override]  # nobody slices a batch's generators
        if not 0 <= place < self.length:
            raise IndexError(place)
        return seeds.generator(
            self.seed, self.name, "item", self.first + (self.places[place] if self.places else place)
        )


class Dataset(Protocol):
    """Anything that can hand out items by number."""

    info: DatasetInfo

    def batch(self, items: list[int], generators: Sequence[Generator]) -> Batch:
        """Those items (0 <= item < info.count) on the CPU; each one's generator decides its crop, flip and caption."""
        ...


def held_out(dataset: Dataset | None) -> Dataset | None:
    """The items that a data set keeps back for validation, and never hands out itself, if it does."""
    return getattr(dataset, "held_out", None)


def whole_batches(info: DatasetInfo, batch_size: int) -> Iterator[list[int]]:
    """All items once, in their order, in batches that may be smaller than ``batch_size``, each of one group."""
    for items in [group.items for group in info.groups] or [range(info.count)]:
        for start in range(0, len(items), batch_size):
            yield [items[place] for place in range(start, min(start + batch_size, len(items)))]


def no_class() -> Conditioning:
    """What a network is told where there is no class: a batch of one."""
    return {"label": torch.tensor([NO_CLASS])}


class Digits:
    """1,797 real handwritten digits, 8x8, as latents (N, 1, size, size) in -1..1, from digits.png beside this file.

    They are the test set of "Optical Recognition of Handwritten Digits" (E. Alpaydin and C. Kaynak, UCI Machine
    Learning Repository, doi 10.24432/C50P49, CC BY 4.0), which scikit-learn has too: 17 levels of grey, here 15 apart.
    """

    def __init__(self, size: int = 8) -> None:
        with Image.open(Path(__file__).with_name("digits.png")) as sheet:
            names: str = sheet.info["labels"]
            pixels = np.asarray(sheet) // 15
        labels = torch.tensor([int(name) for name in names])
        tiles = torch.from_numpy(pixels).float().unflatten(0, (-1, 8)).unflatten(2, (-1, 8)).transpose(1, 2)
        latents = tiles.reshape(-1, 1, 8, 8)[: len(labels)] / 8 - 1
        if size != 8:
            latents = F.interpolate(latents, size=size, mode="bicubic", antialias=True).clamp(-1, 1)
        self.latents, self.labels = latents, labels
        self.info = DatasetInfo("digits", len(latents), 1, size, tuple("0123456789"))

    def batch(self, items: list[int], generators: Sequence[Generator]) -> Batch:
        return Batch(self.latents[items], {"label": self.labels[items]}, negative=no_class)


def order_of_epoch(count: int, seed: int, name: str, epoch: int) -> Tensor:
    """All items (count,), int64, in the order of an epoch; a pure function of its arguments."""
    return torch.randperm(count, generator=seeds.generator(seed, name, "epoch", epoch))


class EpochOrders:
    """:func:`order_of_epoch`, drawn once an epoch and not for each batch: of every group the newest one is kept.

    With groups of 10 million items in all they take 80 MB, however many groups and epochs there are.
    """

    def __init__(self) -> None:
        self.drawn: dict[str, tuple[tuple[int, int, int], Tensor]] = {}

    def __call__(self, count: int, seed: int, name: str, epoch: int) -> Tensor:
        of, order = self.drawn.get(name, (None, None))
        if order is None or of != (count, seed, epoch):
            order = order_of_epoch(count, seed, name, epoch)
            self.drawn[name] = (count, seed, epoch), order
        return order


OrderOfEpoch = Callable[[int, int, str, int], Tensor]


def items_of_batch(
    count: int, batch_size: int, index: int, seed: int, name: str, order_of: OrderOfEpoch = order_of_epoch
) -> list[int]:
    """The items of batch ``index``: every epoch goes through all items once, in an order of its own.

    A pure function of its arguments, so a resumed run sees the batches that it would have seen.
    """
    items: list[int] = []
    position, end = index * batch_size, (index + 1) * batch_size
    while position < end:
        epoch, offset = divmod(position, count)
        part = order_of(count, seed, name, epoch)[offset : offset + end - position].tolist()
        items += part
        position += len(part)
    return items


def whose_turn(index: int, weights: Sequence[float]) -> tuple[int, int]:
    """Which of several sources batch ``index`` comes from, and how many came from it before.

    As even as can be: two sources take turns so that each is never more than half a batch from its exact share; more
    of them are two halves that take turns, and so on. A pure function of its arguments. Weights are above 0.
    """
    if len(weights) == 1:
        return 0, index
    half = len(weights) // 2
    left, right = (sum(map(Fraction, part)) for part in (weights[:half], weights[half:]))
    share = left / (left + right)
    before, after = (floor(number * share + Fraction(1, 2)) for number in (index, index + 1))
    if after > before:
        return whose_turn(before, weights[:half])
    source, turn = whose_turn(index - before, weights[half:])
    return half + source, turn


def plan_batch(
    info: DatasetInfo, batch_size: int, index: int, seed: int, name: str, order_of: OrderOfEpoch = order_of_epoch
) -> list[int]:
    """The items of batch ``index``, all of one group; a pure function of its arguments.

    Each group goes through its own items epoch by epoch, so that batches are always full, also in small groups.
    """
    if not info.groups:
        return items_of_batch(info.count, batch_size, index, seed, name, order_of)
    which, turn = whose_turn(index, [group.weight for group in info.groups])
    group = info.groups[which]
    chosen = items_of_batch(group.count, batch_size, turn, seed, f"{name}, {group.name}", order_of)
    return [group.items[place % len(group.items)] for place in chosen]


class Loader:
    """Hands out the batch of each step, and reads the next one on a thread while the step is computed.

    ``share(index)`` says which items of that global batch are read here; by default all ``batch_size``.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        seed: int,
        name: str,
        pin: bool = False,
        share: Callable[[int], Share] | None = None,
    ) -> None:
        self.dataset, self.seed, self.name, self.pin = dataset, seed, name, pin
        self.share = share or (lambda index: Share.whole(batch_size))
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="rollout-data")
        self.ahead: dict[int, Future[Batch]] = {}
        self.orders = EpochOrders()

    def batch(self, index: int) -> Batch:
        batch = self.ahead.pop(index, None) or self.thread.submit(self._read, index)
        self.ahead = {index + 1: self.thread.submit(self._read, index + 1)}
        return batch.result()

    def _read(self, index: int) -> Batch:
        share = self.share(index)
        items = plan_batch(self.dataset.info, share.total, index, self.seed, self.name, self.orders)
        places = share.places.tolist()
        generators = ItemGenerators(self.seed, self.name, index * share.total, len(places), places)
        batch = self.dataset.batch([items[place] for place in places], generators)
        batch = batch if share.is_whole else replace(batch, dealt=share)
        return batch.pinned() if self.pin else batch


def next_batch(
    step: Step, dataset: Dataset, batch_size: int, reader: Callable[[Dataset], Dataset] = lambda dataset: dataset
) -> Batch:
    """The step's batch on the run's device. ``reader`` is made of the data set once, and read instead of it."""
    run = step.run
    loader: Loader = step.keep(
        lambda: Loader(
            reader(dataset),
            batch_size,
            run.seed,
            step.node_id,
            pin=run.device.type == "cuda",
            share=lambda index: run.share(index, batch_size),
        )
    )
    batch = loader.batch(step.index)
    if batch.dealt and "text" in batch.conditioning:
        shapes = run.processes.gathered_in_step(shapes_of(batch.conditioning))
        batch = replace(batch, conditioning=beside_others(batch.conditioning, shapes))
    return batch.to(run.device)
