"""Data sets, and which items make up the batch of a step."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from ..diffusion.solvers import Conditioning
from . import seeds
from .stream import Step


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a data set before training starts."""

    name: str
    count: int
    """Items, repeats included."""
    channels: int
    size: int
    """Height and width of the latents."""
    classes: tuple[str, ...] = ()
    """Names of the class labels; empty where there are none."""
    family: str = ""
    """The family of pretrained models whose encoders made the latents; empty for pixels."""


@dataclass(frozen=True)
class Batch:
    """Clean latents (B, C, H, W) in about -1..1, with what the network is told about them."""

    latents: Tensor
    conditioning: Conditioning
    captions: tuple[str, ...] = ()

    def to(self, device: torch.device) -> Batch:
        conditioning = {name: value.to(device, non_blocking=True) for name, value in self.conditioning.items()}
        return replace(self, latents=self.latents.to(device, non_blocking=True), conditioning=conditioning)

    def pinned(self) -> Batch:
        """In memory from which a GPU copies while the program goes on."""
        conditioning = {name: value.pin_memory() for name, value in self.conditioning.items()}
        return replace(self, latents=self.latents.pin_memory(), conditioning=conditioning)


class Dataset(Protocol):
    """Anything that can hand out items by number."""

    info: DatasetInfo

    def batch(self, items: list[int], generator: Generator) -> Batch:
        """Those items (0 <= item < info.count) on the CPU; ``generator`` decides crops and flips."""
        ...


class Digits:
    """scikit-learn's 1,797 real handwritten digits, 8x8, as latents (N, 1, size, size) in -1..1."""

    def __init__(self, size: int = 8) -> None:
        try:
            from sklearn.datasets import load_digits
        except ImportError:
            raise ImportError('the digits come with scikit-learn: pip install "comfyui-rollout[demo]"') from None
        pixels, labels = load_digits(return_X_y=True)
        latents = torch.from_numpy(pixels).float().reshape(-1, 1, 8, 8) / 8 - 1
        if size != 8:
            latents = F.interpolate(latents, size=size, mode="bicubic", antialias=True).clamp(-1, 1)
        self.latents, self.labels = latents, torch.from_numpy(labels).long()
        self.info = DatasetInfo("digits", len(latents), 1, size, tuple("0123456789"))

    def batch(self, items: list[int], generator: Generator) -> Batch:
        return Batch(self.latents[items], {"label": self.labels[items]})


def items_of_batch(count: int, batch_size: int, index: int, seed: int, name: str) -> list[int]:
    """The items of batch ``index``: every epoch goes through all items once, in an order of its own.

    A pure function of its arguments, so a resumed run sees the batches that it would have seen.
    """
    items: list[int] = []
    for position in range(index * batch_size, (index + 1) * batch_size):
        epoch, offset = divmod(position, count)
        if offset == 0 or not items:
            order = torch.randperm(count, generator=seeds.generator(seed, name, "epoch", epoch)).tolist()
        items.append(order[offset])
    return items


class Loader:
    """Hands out the batch of each step, and reads the next one on a thread while the step is computed."""

    def __init__(self, dataset: Dataset, batch_size: int, seed: int, name: str, pin: bool = False) -> None:
        self.dataset, self.batch_size, self.seed, self.name, self.pin = dataset, batch_size, seed, name, pin
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="rollout-data")
        self.ahead: dict[int, Future[Batch]] = {}

    def batch(self, index: int) -> Batch:
        batch = self.ahead.pop(index, None) or self.thread.submit(self._read, index)
        self.ahead = {index + 1: self.thread.submit(self._read, index + 1)}
        return batch.result()

    def _read(self, index: int) -> Batch:
        items = items_of_batch(self.dataset.info.count, self.batch_size, index, self.seed, self.name)
        batch = self.dataset.batch(items, seeds.generator(self.seed, self.name, "items", index))
        return batch.pinned() if self.pin else batch


def next_batch(step: Step, dataset: Dataset, batch_size: int) -> Batch:
    """The step's batch on the run's device."""
    loader: Loader = step.keep(
        lambda: Loader(dataset, batch_size, step.run.seed, step.node_id, pin=step.run.device.type == "cuda")
    )
    return loader.batch(step.index).to(step.run.device)
