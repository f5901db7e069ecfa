"""Data sets from ComfyUI's own wires: images, latents and encoded texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...data.encodings.encoders import Encoders
from ...data.native.encoders import encoders_of
from ...data.native.memory import Item, MemoryDataset, cut_to, fit, shrink
from ...data.preflight import number_of
from ...data.reading.captions import CaptionSettings
from ...diffusion.solvers import Conditioning
from ...hosts.comfyui_model import into_latents, told_of
from ...hosts.current import current_host
from ...hosts.device import choose_device
from ...models.hosted import HostedModel
from ...models.loading.pretrained import Pretrained
from ..base import CATEGORY, PIPELINE
from ..inputs import UNIQUE_ID, integer, line, number, switch, wire
from .dataset import DatasetNode

BATCH_SIZE = integer(1, 1, 4096, "Images per training step. Larger is steadier and slower.")
REPEATS = integer(1, 1, 10000, "How often each image comes in one epoch.")


class ImagesToDataset(DatasetNode):
    NODE_ID = "RolloutImagesDataset"
    DISPLAY_NAME = "Images to Dataset"
    CATEGORY = f"{CATEGORY}/data"
    DESCRIPTION = (
        "ComfyUI's images as a data set: batches or lists of IMAGE, of one size or several, with captions and masks. "
        "They are encoded by the VAE and the text encoders on the pipeline, and stay in memory."
    )
    SEARCH_ALIASES = ("image to dataset", "training images", "load images", "vae encode", "buckets")
    INPUT_IS_LIST = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "images": wire("IMAGE", "The images. Their middle is used where a side is no multiple of what fits."),
                "pipeline": wire(PIPELINE, "Whose encoders are used: from Train ComfyUI Model or Load Pretrained."),
                "batch_size": BATCH_SIZE,
                "repeats": REPEATS,
                "caption_dropout": number(0.05, 0.0, 1.0, 0.05, "Chance that an image comes without its caption."),
            },
            "optional": {
                "captions": line("", "One for all images, or a list with one for each.", multiline=True),
                "masks": wire("MASK", "Where the loss looks: white is trained. One for all images, or one for each."),
                "trigger_word": line("", "The word that shall call up what is learnt, put in front of every caption."),
                "flip": switch(False, "Add each image mirrored left to right. Not for text or a known face."),
            },
            "hidden": UNIQUE_ID,
        }

    def build(
        self,
        unique_id: Sequence[str],
        images: Sequence[Tensor],
        pipeline: Sequence[Pretrained | HostedModel],
        batch_size: Sequence[int],
        repeats: Sequence[int],
        caption_dropout: Sequence[float],
        captions: Sequence[str] = ("",),
        masks: Sequence[Tensor] | None = None,
        trigger_word: Sequence[str] = ("",),
        flip: Sequence[bool] = (False,),
    ) -> dict[str, Any]:
        multiple = encoders_of(pipeline[0]).multiple
        whole = [image.movedim(-1, 0)[:3] for image in one_by_one("images", images)]
        pictures = [cut_to(image, multiple) for image in whole]
        if not captions:
            raise ValueError(f"captions: {EMPTY}")
        texts = for_each("captions", list(captions), len(pictures))
        settings = CaptionSettings(trigger_word[0], False, 1, caption_dropout[0])
        texts = [settings.variants_of(text)[0] for text in texts]
        looks = looks_of(masks, whole, multiple)
        if flip[0]:
            pictures += [picture.flip(-1) for picture in pictures]
            looks += [None if look is None else look.flip(-1) for look in looks]
            texts += texts
        items, empty = encode(encoders_of(pipeline[0]), pictures, texts, looks, unique_id[0])
        dataset = MemoryDataset(
            "images", items, encoders_of(pipeline[0]).family, dropped=empty, dropout=caption_dropout[0],
            repeats=repeats[0], colours=colours_of(pipeline[0]),
        )  # fmt: skip
        return self.batches(unique_id[0], dataset, batch_size[0], in_words(dataset, batch_size[0]))


class LatentsToDataset(DatasetNode):
    NODE_ID = "RolloutLatentsDataset"
    DISPLAY_NAME = "Latents to Dataset"
    CATEGORY = f"{CATEGORY}/data"
    DESCRIPTION = (
        "ComfyUI's latents and encoded texts as a data set, for Train ComfyUI Model: lists or batches, of one size or "
        "several, as its data set nodes and Resolution Bucket give them."
    )
    SEARCH_ALIASES = ("latent to dataset", "conditioning", "resolution bucket", "training dataset")
    INPUT_IS_LIST = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "latents": wire("LATENT", "The latents, encoded by the model's VAE. Their noise mask is the loss's."),
                "conditioning": wire("CONDITIONING", "The encoded text: one for all latents, or one for each."),
                "pipeline": wire(PIPELINE, "From Train ComfyUI Model: what scales the latents."),
                "batch_size": BATCH_SIZE,
                "repeats": REPEATS,
            },
            "optional": {
                "empty": wire("CONDITIONING", "The empty text, for dropout."),
                "dropout": number(0.0, 0.0, 1.0, 0.05, "Chance that latents come with the empty text."),
            },
            "hidden": UNIQUE_ID,
        }

    def build(
        self,
        unique_id: Sequence[str],
        latents: Sequence[dict[str, Any]],
        conditioning: Sequence[Any],
        pipeline: Sequence[HostedModel],
        batch_size: Sequence[int],
        repeats: Sequence[int],
        empty: Sequence[Any] = (),
        dropout: Sequence[float] = (0.0,),
    ) -> dict[str, Any]:
        hosted = pipeline[0]
        if not isinstance(hosted, HostedModel):
            raise ValueError("pipeline: these latents are of a ComfyUI model; wire that of Train ComfyUI Model")
        with torch.inference_mode(False):
            seen = [latents_of(hosted, each) for each in latents]
            if not seen:
                raise ValueError(f"latents: {EMPTY}")
            if not conditioning:
                raise ValueError(f"{TEXTS}: {EMPTY}")
            told = texts_for([told_of(each) for each in conditioning], [len(batch) for batch in seen])
            masks = [mask for each, batch in zip(latents, seen, strict=True) for mask in masks_of(each, batch)]
            items = zip((one for batch in seen for one in batch), told, masks, strict=True)
            encoded = [Item(one, text, mask=mask) for one, text, mask in items]
            dropped = told_of(empty[0])[0] if empty else None
        dataset = MemoryDataset(
            "latents", encoded, hosted.family, dropped=dropped, dropout=dropout[0], repeats=repeats[0],
            colours=colours_of(hosted),
        )  # fmt: skip
        return self.batches(unique_id[0], dataset, batch_size[0], in_words(dataset, batch_size[0]))


def looks_of(masks: Sequence[Tensor] | None, images: Sequence[Tensor], multiple: int) -> list[Tensor | None]:
    """The mask (1, H, W) of each image, of its size and cut as it is. Raises ValueError where nothing is white."""
    if masks is None:
        return [None] * len(images)
    shapes = for_each("masks", [mask[None] for mask in one_by_one("masks", masks)], len(images))
    looks = [cut_to(fit(mask, image.shape[-2:]), multiple) for mask, image in zip(shapes, images, strict=True)]
    if not any(bool(look.any()) for look in looks):
        raise ValueError(
            "masks: nothing in them is white, so nothing would be trained; an image without transparency has an empty "
            "mask in Load Image, whose white is what is transparent (Invert Mask turns it round)"
        )
    return list(looks)


def latents_of(hosted: HostedModel, given: dict[str, Any]) -> Tensor:
    """A LATENT as the network sees it (B, C, H, W), on the CPU. Raises ValueError where it is another model's."""
    samples, facts = given["samples"], hosted.facts
    if samples.ndim not in (4, 5) or samples.shape[1] != facts.channels:
        raise ValueError(
            f"latents: they have {tuple(samples.shape[1:])} and {facts.family} takes {facts.channels} x H x W; encode "
            "them with the model's VAE"
        )
    return into_latents(hosted.model, samples).cpu()


def texts_for(told: list[list[Any]], counts: list[int]) -> list[Any]:
    """One text for each latent: from a list for each batch of latents, or from all texts in a row."""
    if len(told) == len(counts):
        return [text for texts, count in zip(told, counts, strict=True) for text in for_each(TEXTS, texts, count)]
    return for_each(TEXTS, [text for texts in told for text in texts], sum(counts))


def masks_of(latents: dict[str, Any], seen: Tensor) -> list[Tensor | None]:
    """The noise mask of each of a batch of latents, in their size."""
    mask = latents.get("noise_mask")
    if mask is None:
        return [None] * len(seen)
    mask = mask.clone().reshape(-1, 1, *mask.shape[-2:]).cpu()
    return [shrink(each, seen.shape[-2:]) for each in for_each("noise_mask", list(mask), len(seen))]


TEXTS = "conditioning"
EMPTY = "the list is empty; the node that it comes from has found nothing"


def one_by_one(name: str, batches: Sequence[Tensor]) -> list[Tensor]:
    """Every item of a list of batches, out of inference mode. Raises ValueError where there is none."""
    with torch.inference_mode(False):
        items = [item.clone() for batch in batches for item in batch]
    if not items:
        raise ValueError(f"{name}: {EMPTY}")
    return items


def for_each(name: str, values: list[Any], count: int) -> list[Any]:
    """One value for each item; a single one is for all. Raises ValueError where they are another number."""
    if len(values) == 1:
        return values * count
    if len(values) != count:
        raise ValueError(f"{name}: there are {len(values)} for {count} images; give one for all, or one for each")
    return values


def encode(
    encoders: Encoders, pictures: Sequence[Tensor], texts: Sequence[str], masks: Sequence[Tensor | None], node_id: str
) -> tuple[list[Item], Conditioning]:
    """The items, and what the network is told for an empty caption: texts first, so that both encoders are never in
    memory."""
    if encoders.classes:
        raise ValueError("pipeline: this model knows classes and reads no captions; use Image Folder Dataset")
    host = current_host()
    device = choose_device(host.device)
    latents: list[Tensor] = []
    with torch.inference_mode(False), torch.no_grad():
        with encoders.text(device) as encode_text:
            known = {text: on_cpu(encode_text([text])) for text in dict.fromkeys(["", *texts])}
        with encoders.images(device) as encode_images:
            for done, picture in enumerate(pictures, 1):
                latents.append(encode_images(2 * picture[None] - 1)[0].cpu())
                host.progress(node_id, done, len(pictures))
                host.check_interrupted()
    items = []
    for picture, seen, text, mask in zip(pictures, latents, texts, masks, strict=True):
        look = None if mask is None else shrink(mask, seen.shape[-2:])
        items.append(Item(seen, known[text] | size_of(encoders, picture), text, look))
    return items, known[""] | size_of(encoders, pictures[0])


def size_of(encoders: Encoders, picture: Tensor) -> Conditioning:
    """What the network is told about the size of a picture (3, H, W) of which nothing is cut off."""
    _, height, width = picture.shape
    return encoders.describe_size((height, width), (0, 0), (height, width))


def on_cpu(told: Conditioning) -> dict[str, Tensor]:
    return {name: value.cpu() for name, value in told.items()}


def colours_of(pipeline: Pretrained | HostedModel) -> Tensor | None:
    """What latents look like, where the host knows."""
    known = pipeline.facts.colours if isinstance(pipeline, HostedModel) else ()
    with torch.inference_mode(False):
        return torch.tensor(known) if known else None


def in_words(dataset: MemoryDataset, batch_size: int) -> str:
    sizes = len(dataset.info.groups) or 1
    return f"{number_of(len(dataset.items), 'image')} of {number_of(sizes, 'size')}, {batch_size} in a batch"
