"""Data sets: what to train on."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any, Literal

from ...data.data import Batch, Dataset, Digits, next_batch
from ...data.emoji import Emoji
from ...data.mixture import Mixture
from ...data.preflight import images_in_words, mixture_in_words
from ...data.reading.beside import masks_in
from ...data.reading.buckets import MOST_OBLONG
from ...data.reading.folder import listing_of
from ...data.reading.images import ImageFolder
from ...data.reading.options import ALPHA
from ...data.reading.patience import PatientReader
from ...hosts.current import current_host
from ...training.stream import Step, Stream
from ..base import CATEGORY, DATASET, StepNode
from ..inputs import UNIQUE_ID, choice, integer, line, number, refusal, switch, wire

log = logging.getLogger(__name__)

BATCH_SIZE = integer(64, 1, 4096, "Images per training step. Larger is steadier and slower.")


class DatasetNode(StepNode):
    """A node whose stream hands out the batches of a data set."""

    RETURN_TYPES = (DATASET,)
    RETURN_NAMES = ("dataset",)
    OUTPUT_TOOLTIPS = ("A batch of clean images with their labels, a new one each step.",)

    def batches(self, unique_id: str, dataset: Dataset, batch_size: int, *words: str) -> dict[str, Any]:
        """What the node returns: the stream of batches, and words on what is in it."""
        if words:
            log.info("node %s (%s): %s", unique_id, self.DISPLAY_NAME, "\n  ".join(words))
        inputs = {"dataset": dataset, "batch_size": batch_size}
        return {"ui": {"text": list(words)}, "result": (self.stream(unique_id, inputs, about=dataset.info),)}

    def step(self, step: Step, dataset: Dataset, batch_size: int) -> Batch:
        return next_batch(step, dataset, batch_size, PatientReader)


class DigitsDataset(DatasetNode):
    NODE_ID = "RolloutDigitsDataset"
    DISPLAY_NAME = "Digits Dataset"
    CATEGORY = f"{CATEGORY}/data"
    DESCRIPTION = (
        "1,797 real handwritten digits, 8x8 pixels, with their labels 0-9. Small enough to train a model from scratch "
        "on a laptop in two minutes. They come with these nodes; nothing is downloaded."
    )
    SEARCH_ALIASES = ("mnist", "toy data", "example data")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        size = integer(
            8, 8, 64, "Height and width in pixels. The originals are 8x8; larger ones are enlarged smoothly.", step=8
        )
        return {"required": {"batch_size": BATCH_SIZE, "size": size}, "hidden": UNIQUE_ID}

    def build(self, unique_id: str, batch_size: int, size: int) -> dict[str, Any]:
        return self.batches(unique_id, Digits(size), batch_size)


class EmojiDataset(DatasetNode):
    NODE_ID = "RolloutEmojiDataset"
    DISPLAY_NAME = "Emoji Dataset"
    CATEGORY = f"{CATEGORY}/data"
    DESCRIPTION = (
        "1,200 emoji faces in colour, 24x24 pixels, a hundred of each of twelve moods such as smiling, in love and "
        "angry. Small enough to train a model from scratch on a laptop in minutes. They are drawn by this node, always "
        "the same ones; nothing is downloaded."
    )
    SEARCH_ALIASES = ("smileys", "faces", "toy data", "example data")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"batch_size": BATCH_SIZE}, "hidden": UNIQUE_ID}

    def build(self, unique_id: str, batch_size: int) -> dict[str, Any]:
        return self.batches(unique_id, Emoji(), batch_size)


class ImageFolderDataset(DatasetNode):
    NODE_ID = "RolloutImageFolderDataset"
    DISPLAY_NAME = "Image Folder Dataset"
    CATEGORY = f"{CATEGORY}/data"
    DESCRIPTION = (
        "Your own images. Sub-folders become class labels, in alphabetical order. Captions, in text files of the same "
        "name (cat.png, cat.txt) or in metadata.jsonl, come along for models that read text: put Encode Dataset behind "
        "it. Masks may lie beside their images (cat-masklabel.png). What is left out is named. The node says what it "
        "found."
    )
    SEARCH_ALIASES = (
        "image directory",
        "load images",
        "training images",
        "batch size",
        "bucket",
        "aspect ratio",
        "mask",
        "flip",
        "crop",
        "resolution",
        "photos",
        "dataset",
    )

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
            "optional": {
                "buckets": switch(
                    False,
                    "Keep oblong images oblong: each is cut to one of several sizes of about size x size pixels in "
                    "all, and a batch holds images of one of them. For pretrained models, with Encode Dataset.",
                ),
                "upscale": switch(
                    True,
                    "With buckets: enlarge images that are smaller than their bucket. Off: they get smaller buckets.",
                    advanced=True,
                ),
                "mask_folder": line(
                    "",
                    "Folder with a mask for each image, of the same name: white is trained, black is not. alpha: each "
                    "image's own transparency is its mask. Empty: everything is trained.",
                ),
                "default_caption": line("", "The caption of images that have no text file."),
                "loss_weight": number(
                    1.0,
                    0.0,
                    100.0,
                    0.1,
                    "How much these images count in the loss. For DreamBooth's class images: the prior loss weight.",
                    advanced=True,
                ),
                "max_aspect_ratio": number(
                    MOST_OBLONG,
                    1.0,
                    8.0,
                    0.1,
                    "With buckets: how many times as long as it is wide a bucket may be. Panoramas lose less with 3 or "
                    "4; the node says which images lose more than a tenth.",
                    advanced=True,
                ),
                "kohya_folders": switch(
                    True,
                    "Read the names of sub-folders such as 10_sks dog as kohya's trainers do: ten repeats, and sks dog "
                    "is the caption of images that have none.",
                    advanced=True,
                ),
                "control": line(
                    "",
                    "For models that edit (Qwen-Image-Edit, FLUX.1 Kontext, FLUX.2): folder with the pictures from "
                    "which the images are made, of the same names. The captions say what is changed.",
                ),
                "validation": number(
                    0.0,
                    0.0,
                    0.9,
                    0.05,
                    "Share of the images that is not trained, for the validation loss: 0.1 is usual. Always the same "
                    "images, also in a resumed run; the node names them. Optimizer Step draws the curve "
                    "(validate_every).",
                ),
                "resolutions": line(
                    "",
                    "Train each image in several sizes in place of size, e.g. 512, 768, 1024: the model then draws "
                    "well in all of them. An epoch is as many times as long. Empty: size alone.",
                    advanced=True,
                ),
            },
            "hidden": UNIQUE_ID,
        }

    @classmethod
    def VALIDATE_INPUTS(
        cls, folder: str, mask_folder: str = "", control: str = "", resolutions: str = ""
    ) -> bool | str:
        masks = masks_of(mask_folder) if mask_folder is not None else None
        said = refusal("folder", lambda: listing_of(folder_of(folder))) if folder is not None else None
        if said is None and isinstance(masks, Path):
            said = refusal("mask_folder", lambda: masks_in(masks))
        if said is None and (shown := control_of(control or "")):
            said = refusal("control", lambda: listing_of(shown))
        if said is None:
            said = refusal("resolutions", lambda: resolutions_of(resolutions or ""))
        return said or True

    @classmethod
    def IS_CHANGED(cls, folder: str, mask_folder: str = "", control: str = "", **other: Any) -> Any:
        files, masks = listing_of(folder_of(folder)).files(), masks_of(mask_folder)
        files += masks_in(masks).values() if isinstance(masks, Path) else []
        files += listing_of(shown).pictures if (shown := control_of(control)) else []
        return [(str(path), path.stat().st_mtime_ns) for path in files]

    def build(
        self,
        unique_id: str,
        folder: str,
        batch_size: int,
        mask_folder: str = "",
        control: str = "",
        resolutions: str = "",
        **options: Any,
    ) -> dict[str, Any]:
        beside: dict[str, Any] = {"mask_folder": masks_of(mask_folder), "control": control_of(control)}
        options |= {"resolutions": resolutions_of(resolutions), "indexes": current_host().output_folder / "index"}
        images = ImageFolder(folder_of(folder), **beside, **options)
        return self.batches(unique_id, images, batch_size, *images_in_words(images, batch_size))


class CombineDatasets(DatasetNode):
    NODE_ID = "RolloutCombineDatasets"
    DISPLAY_NAME = "Combine Datasets"
    CATEGORY = f"{CATEGORY}/data"
    DESCRIPTION = (
        "Trains on two to four data sets at once: every batch comes from one of them, as often as its weight says. For "
        "DreamBooth, combine your photos with images of the class (prior preservation). Data sets for a pretrained "
        "model are encoded first, each by an Encode Dataset of its own."
    )
    SEARCH_ALIASES = ("mix", "concat", "prior preservation", "dreambooth", "regularization images")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        tooltip = "How often batches come from {}, compared with the other weights."
        weights = {
            f"weight_{place}": number(1.0, 0.0, 1000.0, 0.1, tooltip.format(f"dataset_{place}"))
            for place in range(1, 5)
        }
        return {
            "required": {
                "dataset_1": wire(DATASET, "The first data set, e.g. your photos."),
                "weight_1": weights["weight_1"],
                "dataset_2": wire(DATASET, "The second data set, e.g. images of the class."),
                "weight_2": weights["weight_2"],
            },
            "optional": {
                "dataset_3": wire(DATASET, "A third data set."),
                "weight_3": weights["weight_3"],
                "dataset_4": wire(DATASET, "A fourth data set."),
                "weight_4": weights["weight_4"],
            },
            "hidden": UNIQUE_ID,
        }

    def build(self, unique_id: str, **inputs: Any) -> dict[str, Any]:
        places = [place for place in range(1, 5) if inputs.get(f"dataset_{place}") and inputs[f"weight_{place}"] > 0]
        if not places:
            raise ValueError("weight_1: give at least one data set a weight above 0")
        streams: list[Stream] = [inputs[f"dataset_{place}"] for place in places]
        sizes = {stream.inputs["batch_size"] for stream in streams}
        if len(sizes) > 1:
            raise ValueError(f"batch_size: the data sets have {', '.join(map(str, sorted(sizes)))}; give all the same")
        weights = [inputs[f"weight_{place}"] for place in places]
        mixture = Mixture([stream.inputs["dataset"] for stream in streams], weights)
        batch_size = sizes.pop()
        return self.batches(unique_id, mixture, batch_size, *mixture_in_words(mixture, weights, batch_size))


def masks_of(text: str) -> Path | Literal["alpha"] | None:
    """The folder that was typed in, or ``alpha``; None for an empty line."""
    if text.strip() == ALPHA:
        return "alpha"
    return Path(text).expanduser() if text.strip() else None


def control_of(text: str) -> Path | None:
    """The folder of the pictures that are to be changed; None for an empty line."""
    return Path(text).expanduser() if text.strip() else None


def resolutions_of(text: str) -> list[int]:
    """The sizes that were typed in; raises ValueError for what is none."""
    words = text.replace(",", " ").split()
    wrong = [
        word for word in words if not re.fullmatch(r"\d{1,4}", word) or not 8 <= int(word) <= 4096 or int(word) % 8
    ]
    if wrong:
        raise ValueError(
            f"resolutions: {wrong[0]!r} is no size: write multiples of 8 up to 4096, with commas between them, e.g. "
            "512, 768"
        )
    return [int(word) for word in words]


def folder_of(text: str) -> Path:
    """The folder that was typed in; raises ValueError for an empty line, which Path takes for the current folder."""
    if not text.strip():
        raise ValueError("folder: name the folder that holds the images, or drop them on the canvas")
    return Path(text).expanduser()
