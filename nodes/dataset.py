"""Data sets: what to train on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..training.data import Batch, Dataset, Digits, next_batch
from ..training.images import ImageFolder, find_images
from ..training.stream import Step, Stream
from .base import DATASET, StepNode
from .inputs import UNIQUE_ID, choice, integer, line, switch

BATCH_SIZE = integer(64, 1, 4096, "Images per training step. Larger is steadier and slower.")


class DatasetNode(StepNode):
    """A node whose stream hands out the batches of a data set."""

    RETURN_TYPES = (DATASET,)
    RETURN_NAMES = ("dataset",)
    OUTPUT_TOOLTIPS = ("A batch of clean images with their labels, a new one each step.",)

    def batches(self, unique_id: str, dataset: Dataset, batch_size: int) -> tuple[Stream]:
        inputs = {"dataset": dataset, "batch_size": batch_size}
        return (self.stream(unique_id, inputs, about=dataset.info),)

    def step(self, step: Step, dataset: Dataset, batch_size: int) -> Batch:
        return next_batch(step, dataset, batch_size)


class DigitsDataset(DatasetNode):
    NODE_ID = "RolloutDigitsDataset"
    DISPLAY_NAME = "Digits Dataset"
    DESCRIPTION = (
        "1,797 real handwritten digits, 8x8 pixels, with their labels 0-9. Small enough to train a model from scratch "
        "on a laptop in two minutes. They come with scikit-learn; nothing is downloaded."
    )
    SEARCH_ALIASES = ("mnist", "toy data", "example data")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        size = integer(
            8, 8, 64, "Height and width in pixels. The originals are 8x8; larger ones are enlarged smoothly.", step=8
        )
        return {"required": {"batch_size": BATCH_SIZE, "size": size}, "hidden": UNIQUE_ID}

    def build(self, unique_id: str, batch_size: int, size: int) -> tuple[Stream]:
        return self.batches(unique_id, Digits(size), batch_size)


class ImageFolderDataset(DatasetNode):
    NODE_ID = "RolloutImageFolderDataset"
    DISPLAY_NAME = "Image Folder Dataset"
    DESCRIPTION = (
        "Your own images. Sub-folders become class labels, in alphabetical order. Captions, in text files of the same "
        "name (cat.png, cat.txt), come along for models that read text; New Model does not. Damaged files are named "
        "in the log and left out."
    )
    SEARCH_ALIASES = ("image directory", "load images", "training images")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "folder": line("", "Folder with the images, sub-folders included."),
                "batch_size": BATCH_SIZE,
                "size": integer(64, 8, 4096, "Images are resized and cut to this height and width in pixels.", step=8),
                "repeats": integer(
                    1, 1, 10000, "How often each image comes in one epoch. Raise it for a handful of images."
                ),
                "crop": choice(
                    ("center", "random"),
                    "center",
                    "Which square of an oblong picture: its middle, or another one each time.",
                ),
                "flip": switch(False, "Mirror half of the images left to right. Not for text, digits or a known face."),
                "color": choice(("RGB", "L"), "RGB", "RGB: three colour channels. L: one channel, greyscale."),
                "background": choice(
                    ("white", "black", "gray"), "white", "What shows through where an image is transparent."
                ),
            },
            "hidden": UNIQUE_ID,
        }

    @classmethod
    def VALIDATE_INPUTS(cls, folder: str) -> bool | str:
        if folder is None:
            return True
        try:
            find_images(folder_of(folder))
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def IS_CHANGED(cls, folder: str, **other: Any) -> Any:
        files = find_images(folder_of(folder))
        return [(str(path), path.stat().st_mtime_ns) for path in files]

    def build(self, unique_id: str, folder: str, batch_size: int, **options: Any) -> tuple[Stream]:
        return self.batches(unique_id, ImageFolder(folder_of(folder), **options), batch_size)


def folder_of(text: str) -> Path:
    """The folder that was typed in; raises ValueError for an empty line, which Path takes for the current folder."""
    if not text.strip():
        raise ValueError("folder: name the folder that holds the images")
    return Path(text).expanduser()
