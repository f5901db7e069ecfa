"""What people call an item of a data set: the file that it came from, if it did."""

from __future__ import annotations

from pathlib import Path

from .data import Dataset
from .encodings.encoded import EncodedDataset
from .mixture import Mixture
from .reading.images import ImageFolder
from .shards.encoded import EncodedShards
from .shards.images import ShardImages


def name_of(dataset: Dataset, item: int) -> str:
    """``item 12 (cats/3.jpg)``, or ``item 12`` where it is no file."""
    path = file_of(dataset, item)
    return f"item {item} ({path.parent.name}/{path.name})" if path else f"item {item}"


def file_of(dataset: Dataset, item: int) -> Path | None:
    if isinstance(dataset, Mixture):
        which, place = dataset.origin(item)
        return file_of(which, place)
    if isinstance(dataset, ImageFolder):
        return dataset.items[dataset.at(item)].path
    if isinstance(dataset, EncodedDataset):
        return dataset.entries[item % len(dataset.entries)].views[0].item.path
    if isinstance(dataset, ShardImages):
        return dataset.index.path(dataset.at(item))
    if isinstance(dataset, EncodedShards):
        return dataset.images.index.path(dataset.at(item))
    return None
