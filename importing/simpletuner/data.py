"""The data sets: folders of images, each encoded, and several of them combined."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...data.reading.folder import find_images
from ...nodes.data.dataset import folder_of
from .draft import Draft
from .report import Report
from .settings import Settings
from .table import BACKEND, CAPTION_SHUFFLE

FRAME = "Data"
CACHES = ("text_embeds", "image_embeds", "conditioning_image_embeds")
SIDE = 64  # to which SimpleTuner rounds the sides of images
COMBINED = 4  # data sets that one Combine Datasets takes


@dataclass(frozen=True)
class Found:
    """The data of a training."""

    link: list[Any]
    images: int | None
    """How many there are in an epoch, repeats included; None where a folder is not here."""


def datasets(draft: Draft, config: Settings, backends: Sequence[Settings], pipeline: list[Any]) -> Found:
    """A folder and its encoding for each data set, and Combine Datasets where there are several."""
    found = with_images(backends, draft.report)
    if not found:
        draft.report.left.append("data_backend_config: there is no data set; name a folder in Image Folder Dataset")
        found = [Settings({}, BACKEND, "data set")]
    links = [[encoded(draft, config, backend, shown_to(backend, backends), pipeline), 0] for backend in found]
    counts = [count(backend) for backend in found]
    known = [number for number in counts if number is not None]
    total = sum(known) if len(known) == len(counts) else None
    if len(links) > 1:
        return Found(combined(draft, links, weights(config, found, known if total else None, draft.report)), total)
    return Found(links[0], total)


def with_images(backends: Sequence[Settings], report: Report) -> list[Settings]:
    """The data sets of images; what becomes of the others is reported."""
    images = []
    for backend in backends:
        kind, place = backend["dataset_type"], backend["type"]
        if backend["disabled"] or backend["disable"]:
            backend.dropped = True
            report.ignored.append(f"{backend.name}: it is disabled")
        elif kind in CACHES:
            backend.dropped = True
            report.ignored.append(f"{backend.name} ({kind}): Encode Dataset keeps what it encoded by itself")
        elif kind == "conditioning" and backend["instance_data_dir"] in [
            shown_to(other, backends) for other in backends
        ]:
            backend.dropped = True
        elif kind != "image":
            report.changed.append(
                f"{backend.name}: a data set of type {kind!r} has no place here; it is left out (masks: name their "
                "folder in Image Folder Dataset: mask_folder)"
            )
        else:
            images.append(backend)
            dataset = backend["dataset_name"]
            if place == "huggingface" and dataset:
                report.left.append(
                    f"{backend.name}: its images are the data set {dataset} of the Hugging Face hub; save them as "
                    "files, with their captions in metadata.jsonl, and name their folder in its Image Folder Dataset"
                )
            elif place != "local":
                report.left.append(
                    f"{backend.name}: its images lie elsewhere (type {place!r}); bring them here, and name their "
                    "folder in its Image Folder Dataset"
                )
    return images


def shown_to(backend: Settings, backends: Sequence[Settings]) -> str:
    """The folder of the pictures from which a data set's images are made; empty where it has none here."""
    named = backend["conditioning_data"]
    names = named if isinstance(named, list) else [named]
    folders = [
        other["instance_data_dir"]
        for other in backends
        if other["dataset_type"] == "conditioning" and other["type"] == "local" and other["id"] in names
    ]
    return next(iter(folders), "")


def encoded(draft: Draft, config: Settings, backend: Settings, control: str, pipeline: list[Any]) -> str:
    """Image Folder Dataset and Encode Dataset of one data set; returns the id of the latter."""
    title, report = backend["id"], draft.report
    folder = backend["instance_data_dir"] if backend["type"] == "local" else ""
    if backend["type"] == "local" and count(backend) is None and backend.is_set("id"):
        report.left.append(
            f"{backend.name}: the folder {folder!r} holds no images here; name it in Image Folder Dataset"
        )
    if backend.is_set("is_regularisation_data") or backend.is_set("is_regularization_data"):
        report.changed.append(
            f"{backend.name}: its regularisation images are trained like all others; SimpleTuner trains towards what "
            "the model without its adapter makes of them"
        )
    squares = backend["crop"] and backend["crop_aspect"] == "square"
    default_caption, trigger_word = captions(backend, report)
    images = draft.add(
        FRAME,
        "RolloutImageFolderDataset",
        title,
        folder=folder,
        batch_size=config["train_batch_size"],
        size=side_of(config, backend, squares, report),
        repeats=backend["repeats"] + 1,
        crop="random" if backend["crop"] and backend["crop_style"] == "random" else "center",
        buckets=not squares,
        default_caption=default_caption,
        kohya_folders=False,
        control=control or None,
    )
    return draft.add(
        FRAME,
        "RolloutEncodeDataset",
        f"Encode {title}" if title else "",
        dataset=[images, 0],
        pipeline=pipeline,
        caption_dropout=config["caption_dropout_probability"],
        trigger_word=trigger_word,
        **shuffled_tags(backend, report),
    )


def captions(backend: Settings, report: Report) -> tuple[str, str]:
    """(caption of images without a text file, word before all captions)."""
    if not backend.given:  # there is no data set to say anything of
        return "", ""
    strategy, instance = backend["caption_strategy"].replace("_", ""), backend["instance_prompt"]
    if strategy == "instanceprompt" or backend["only_instance_prompt"]:
        report.changed.append(
            f"{backend.name}: instance_prompt is the caption of images without a text file; SimpleTuner passes over "
            "text files, so move them away if there are any"
        )
        return instance, ""
    if strategy != "textfile":
        report.changed.append(
            f"{backend.name}: captions are read from text files beside the images, not by caption_strategy "
            f"{strategy!r}; images without one have no caption"
        )
    return "", instance if backend["prepend_instance_prompt"] else ""


def shuffled_tags(backend: Settings, report: Report) -> dict[str, Any]:
    """Encode Dataset's inputs for tags in several orders; the caption as it was written counts as one of them."""
    wish = backend["caption_shuffle"]
    if not isinstance(wish, dict):
        return {}
    shuffle = Settings(wish, CAPTION_SHUFFLE, f"{backend.name}: caption_shuffle")
    if not shuffle["enable"]:
        return {}
    if shuffle["split_on"] != "comma" or shuffle["position_start"]:
        report.changed.append(
            f"{shuffle.name}: tags are parted at commas and all of them are shuffled; there is no split_on and no "
            "position_start"
        )
    return {"shuffle_tags": True, "caption_variants": shuffle["count"] + 1}


def side_of(config: Settings, backend: Settings, squares: bool, report: Report) -> int:
    """The side in pixels of a square of the area that the images have, a multiple of 64 as in SimpleTuner."""
    resolution = backend["resolution"] if backend.is_set("resolution") else config["resolution"]
    kind = backend["resolution_type"] or config["resolution_type"]
    if kind == "pixel" and not squares:
        report.changed.append(
            f"{backend.name}: resolution_type pixel: {resolution:g} is the smaller edge there, so oblong images are "
            "larger than squares; here all have about size x size pixels. Raise size if most are oblong"
        )
    side = 1000 * math.sqrt(max(0.0, resolution)) if kind == "area" else resolution
    return max(1, round(side / SIDE)) * SIDE


def count(backend: Settings) -> int | None:
    """Images in one epoch, repeats included; None if the folder is not here."""
    try:
        return len(find_images(folder_of(backend["instance_data_dir"]))) * (backend["repeats"] + 1)
    except (OSError, ValueError):
        return None


def weights(config: Settings, found: Sequence[Settings], counts: list[int] | None, report: Report) -> list[float]:
    """How often batches come from each data set: by probability, and by the number of images unless told otherwise."""
    chances = [backend["probability"] for backend in found]
    if config["data_backend_sampling"] == "uniform":
        return chances
    if counts is None:
        report.left.append(
            "data_backend_sampling: auto-weighting takes batches by the number of images, which cannot be counted "
            "here; write images x repeats of each data set into the weights of Combine Datasets"
        )
        return chances
    return [round(chance * number / max(counts), 3) for chance, number in zip(chances, counts, strict=True)]


def combined(draft: Draft, links: list[list[Any]], shares: list[float]) -> list[Any]:
    """The link to all data sets as one."""
    while len(links) > 1:
        inputs: dict[str, Any] = {}
        for place, (link, share) in enumerate(zip(links[:COMBINED], shares[:COMBINED], strict=True), 1):
            inputs |= {f"dataset_{place}": link, f"weight_{place}": share}
        together = draft.add(FRAME, "RolloutCombineDatasets", **inputs)
        links, shares = [[together, 0], *links[COMBINED:]], [sum(shares[:COMBINED]), *shares[COMBINED:]]
    return links[0]
