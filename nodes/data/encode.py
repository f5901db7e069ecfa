"""Encode Dataset: images and captions become what a pretrained model is trained on, before training starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...data.encodings.cache import Cache
from ...data.encodings.encoding import Encoding
from ...data.native.encoders import encoders_of
from ...data.preflight import encoding_in_words, images_in_words
from ...data.reading.captions import CaptionSettings
from ...data.reading.images import ImageFolder
from ...hosts.current import current_host
from ...hosts.device import choose_device
from ...models.hosted import HostedModel
from ...models.loading.pretrained import Pretrained
from ...models.vae_preview import VaePreviews
from ...training.stream import Stream
from ..base import CATEGORY, DATASET, PIPELINE
from ..inputs import UNIQUE_ID, integer, line, number, switch, wire
from .dataset import DatasetNode


class EncodeDataset(DatasetNode):
    NODE_ID = "RolloutEncodeDataset"
    DISPLAY_NAME = "Encode Dataset"
    CATEGORY = f"{CATEGORY}/data"
    DESCRIPTION = (
        "Encodes images and captions once, with the VAE and the text encoders of a pretrained model, and keeps the "
        "result on disk. The encoders are out of memory before training starts. What was encoded before is not encoded "
        "again: after an edit only what changed is, and an interrupted encoding goes on."
    )
    SEARCH_ALIASES = (
        "cache latents",
        "vae encode",
        "text encoder",
        "captions",
        "trigger word",
        "caption dropout",
        "tag",
        "tags",
        "shuffle",
        "token",
        "instance prompt",
    )
    OUTPUT_TOOLTIPS = ("A batch of latents with their encoded captions, a new one each step.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "dataset": wire(DATASET, "The images, from Image Folder Dataset."),
                "pipeline": wire(PIPELINE, "The model whose encoders are used, from Load Pretrained."),
                "caption_dropout": number(
                    0.05,
                    0.0,
                    1.0,
                    0.05,
                    "Chance that an image comes without its caption. A little keeps the model good at guidance; 1 "
                    "trains without captions.",
                ),
                "trigger_word": line(
                    "",
                    "The word that shall call up what is learnt. It is put in front of every caption that does not "
                    "hold it, or in place of [trigger].",
                ),
                "shuffle_tags": switch(
                    False, "For captions that are lists of tags with commas: show them in several orders."
                ),
                "caption_variants": integer(
                    4, 1, 64, "shuffle_tags: how many orders of each caption are encoded.", advanced=True
                ),
                "cache_folder": line(
                    "",
                    "Where the encoded files are kept. Empty: the folder encoded in the output folder. Many data sets "
                    "and models can share one.",
                    advanced=True,
                ),
            },
            "optional": {
                "previews": line(
                    "",
                    "How latents are shown while training. Empty: by a linear map to colours, which costs nothing. "
                    "vae: decoded by the model's own VAE. Or a tiny VAE in diffusers' format: a folder, or a hub id "
                    "such as madebyollin/taesd.",
                    advanced=True,
                ),
                "keep_tags": integer(
                    0,
                    0,
                    100,
                    "shuffle_tags: so many tags in front stay there. The trigger word stays first anyway.",
                    advanced=True,
                ),
            },
            "hidden": UNIQUE_ID,
        }

    @classmethod
    def IS_CHANGED(cls, cache_folder: str = "", **other: Any) -> Any:
        # A cache that was removed is made again. No times nor counts of files: encoding itself changes those, and the
        # next run would look at every image again.
        folder = cache_of(cache_folder).folder
        return [str(folder.resolve()), *sorted(path.name for path in folder.glob("*/"))]

    def build(
        self,
        unique_id: str,
        dataset: Stream,
        pipeline: Pretrained | HostedModel,
        previews: str = "",
        **options: Any,
    ) -> dict[str, Any]:
        images, batch_size = dataset.inputs["dataset"], dataset.inputs["batch_size"]
        if not isinstance(images, ImageFolder):
            raise ValueError("dataset: wire an Image Folder Dataset; others are not encoded, or are so already")
        host = current_host()
        encoding = encoding_of(images, pipeline, options)
        words = [*images_in_words(images, batch_size, encoding.reads_text), *encoding_in_words(encoding)]

        def advance(done: int, total: int) -> None:
            if total:
                host.progress(str(unique_id), done, total)
            host.check_interrupted()

        with host.processes.one_first():
            if encoding.missing:
                host.make_room()
            encoded = encoding.run(host.processes.device(choose_device(host.device)), advance)
        if previews.strip():
            if isinstance(pipeline, HostedModel):
                raise ValueError(
                    "previews: leave it empty for a ComfyUI model, whose latents are shown by a linear map"
                )
            linear: Any = encoded.info.colours
            encoded.info = replace(encoded.info, colours=VaePreviews(pipeline, previews.strip(), linear))
        return self.batches(unique_id, encoded, batch_size, *words)


def encoding_of(images: ImageFolder, pipeline: Pretrained | HostedModel, options: Mapping[str, Any]) -> Encoding:
    """What is to be encoded, by the node's widgets."""
    captions = CaptionSettings(
        options["trigger_word"],
        options["shuffle_tags"],
        options["caption_variants"],
        options["caption_dropout"],
        options.get("keep_tags", 0),
    )
    return Encoding(images, encoders_of(pipeline), captions, cache_of(options["cache_folder"]))


def cache_of(text: str) -> Cache:
    """The cache in the folder that was typed in, or in the output folder."""
    return Cache(Path(text).expanduser() if text.strip() else current_host().output_folder / "encoded")
