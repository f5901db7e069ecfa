"""Shard Dataset: pictures in tar files, too many for a folder."""

from __future__ import annotations

from typing import Any

from ...data.shards.images import ShardImages
from ...data.shards.index import index_of
from ...data.shards.preflight import shards_in_words
from ...data.shards.source import shards_at
from ...hosts.current import current_host
from ..base import CATEGORY
from ..inputs import UNIQUE_ID, line, refusal
from .dataset import DatasetNode, ImageFolderDataset

OF_FOLDERS = ("folder", "mask_folder", "kohya_folders", "control", "validation", "resolutions")
"""What Image Folder Dataset asks and shards have no answer to."""


class ShardDataset(DatasetNode):
    NODE_ID = "RolloutShardDataset"
    DISPLAY_NAME = "Shard Dataset"
    CATEGORY = f"{CATEGORY}/data"
    DESCRIPTION = (
        "Millions of images in tar files (WebDataset), on a disk or at a URL. Files of one name are one sample: the "
        "image, its caption (.txt or .json) and its class (.cls). The first start reads every shard once and keeps an "
        "index; a later one reads only what is new. The order of a seed is exact, and so is resuming."
    )
    SEARCH_ALIASES = (
        "webdataset",
        "wds",
        "tar",
        "large dataset",
        "streaming",
        "s3",
        "http",
        "bucket",
        "laion",
        "img2dataset",
        "dataset",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        shards = line(
            "",
            "The tar files: a folder of them, a pattern (data/*.tar), or a URL (https://, s3://); braces stand for "
            "many, as in shard-{000..099}.tar.",
        )
        folder = ImageFolderDataset.INPUT_TYPES()
        required, optional = (
            {name: declared for name, declared in folder[kind].items() if name not in OF_FOLDERS}
            for kind in ("required", "optional")
        )
        return {"required": {"shards": shards, **required}, "optional": optional, "hidden": UNIQUE_ID}

    @classmethod
    def VALIDATE_INPUTS(cls, shards: str) -> bool | str:
        if shards is None or "://" in shards:  # a wire, or a server that may keep us waiting: the node itself asks it
            return True
        return refusal("shards", lambda: shards_at(shards)) or True

    @classmethod
    def IS_CHANGED(cls, shards: str, **other: Any) -> Any:
        return list(shards_at(shards).keys)

    def build(self, unique_id: str, shards: str, batch_size: int, **options: Any) -> dict[str, Any]:
        host = current_host()

        def advance(done: int, total: int) -> None:
            host.progress(str(unique_id), done, total)
            host.check_interrupted()

        index = index_of(shards_at(shards), host.output_folder / "index" / "shards", advance)
        images = ShardImages(index, **options)
        return self.batches(unique_id, images, batch_size, *shards_in_words(images, batch_size))
