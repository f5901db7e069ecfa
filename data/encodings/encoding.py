"""Encode once: a folder of images as latents and encoded captions on disk, so that the encoders need not be in memory.

Everything is kept by the content that it was made from: the bytes of the image, how it is cut, the caption, and the
encoder. An edit encodes again what it changed, and an interrupted encoding goes on where it was.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ...diffusion import seeds
from ...models.loading.weight_count import in_words
from ..reading.ahead import ahead
from ..reading.captions import CaptionSettings
from ..reading.cropping import Place, to_picture
from ..reading.images import ImageFolder, ImageItem
from ..reading.index import index_of, looked_up
from . import colours
from .cache import Cache, content_of, key_of
from .encoded import LATENTS, MASKS, TEXT, EncodedDataset, Entry, Text, View, text_of
from .encoders import EncodeImages, Encoders, EncodeText

log = logging.getLogger(__name__)

Advance = Callable[[int, int], None]
"""``advance(done, total)`` is told how many files are made."""

SECONDS_BETWEEN_LINES = 10

SHORT = 50
"""Bytes of a caption that every encoder reads whole, whatever their tokens."""


class Encoding:
    """What is to be encoded of a folder of images, and by what. Nothing is loaded before :meth:`run`.

    Raises ValueError where images and encoders do not go together.
    """

    def __init__(self, images: ImageFolder, encoders: Encoders, captions: CaptionSettings, cache: Cache) -> None:
        self.held_out = images.held_out
        for part in (images, self.held_out) if self.held_out else (images,):
            refuse_unless_encodable(part, encoders)
        self.images, self.encoders, self.captions, self.cache = images, encoders, captions, cache
        self.reads_text = not encoders.classes
        self.contents = self._contents()
        self.entries = [self._entry(item, images) for item in images.items]
        self.kept_back = [self._entry(item, self.held_out) for item in self.held_out.items] if self.held_out else []
        """Those for validation."""
        self.all_entries = [*self.entries, *self.kept_back]
        self.texts = self._texts() if self.reads_text else {}
        """What is read, and the picture beside which it is, where the text encoder sees one."""
        self.text_keys = {text: key_of(encoders.text_identity, text) for text in self.texts}
        pictures = [view for entry in self.all_entries for view in entry.views]
        controls = [view.control for view in pictures if view.control]
        views = {view.key: view for view in [*pictures, *controls]}
        masks = {entry.mask: entry.views[0] for entry in self.all_entries if entry.mask}
        self.missing_texts = [text for text, key in self.text_keys.items() if not cache.has(TEXT, key)]
        there = {*self.text_keys} - {*self.missing_texts}
        self.caption_bytes = max((cache.path(TEXT, self.text_keys[text]).stat().st_size for text in there), default=0)
        """What an encoded caption takes on disk at most; 0 until there is one, for only the encoder knows."""
        self.missing_views = [view for key, view in views.items() if not cache.has(LATENTS, key)]
        self.missing_masks = {key: view for key, view in masks.items() if not cache.has(MASKS, key)}
        self.views = len(views)
        """How many there are, those that look alike counted once."""

    def _contents(self) -> dict[Path, str]:
        """A short name for what each picture and each mask holds."""
        items = [*self.images.items, *(self.held_out.items if self.held_out else [])]
        paths = list(dict.fromkeys(path for item in items for path in (item.path, item.mask, item.control) if path))
        index = index_of(self.images.folder, "contents", self.images.indexes)
        return dict(zip(paths, looked_up(paths, content_of, bool, index, "contents by BLAKE2b"), strict=True))

    def _texts(self) -> dict[Text, View | None]:
        """All captions, and the empty one: beside each picture, or once for all."""
        if not self.encoders.sees_control:
            return dict.fromkeys(["", *(caption for entry in self.all_entries for caption in entry.captions)])
        return {
            text_of(self.encoders, caption, view): view.control
            for entry in self.all_entries
            for view in entry.views
            for caption in ("", *entry.captions)
        }

    def _entry(self, item: ImageItem, images: ImageFolder) -> Entry:
        content = self.contents[item.path]
        # A random cut is drawn once for each image: latents cannot be cut anew each time, as pixels can.
        place = images.options.place(seeds.generator(0, content, "crop"))
        made_of = (content, item.bucket, place, self.images.options.background)
        views = tuple(
            View(
                item,
                place,
                flipped,
                key_of(self.encoders.image_identity, *made_of, flipped),
                self._control(item, place, flipped),
            )
            for flipped in ((False, True) if images.options.flip else (False,))
        )
        mask = ""
        if item.mask:
            by_opacity = item.mask == item.path
            mask = key_of(self.contents[item.mask], by_opacity, item.bucket, place, self.encoders.factor)
        return Entry(views, mask, self.captions.variants_of(item.caption), item.label)

    def _control(self, item: ImageItem, place: Place, flipped: bool) -> View | None:
        """The picture that is to be changed, cut and mirrored as the one that is made of it."""
        if item.control is None:
            return None
        made_of = (self.contents[item.control], item.bucket, place, self.images.options.background)
        shown = replace(item, path=item.control, control=None)
        return View(shown, place, flipped, key_of(self.encoders.image_identity, *made_of, flipped))

    def cut_captions(self) -> tuple[list[ImageItem], int]:
        """Images of whose captions a part is cut off, and how many tokens are read. Loads the tokenizers."""
        if not self.reads_text:
            return [], 0
        captions = {text: None for entry in self.entries for text in entry.captions if len(text.encode()) > SHORT}
        cut, most = self.encoders.longer_than_read(list(captions)) if captions else ([], 0)
        items = zip(self.images.items, self.entries, strict=True)
        return list({item.path: item for item, entry in items if {*cut} & {*entry.captions}}.values()), most

    @property
    def missing(self) -> int:
        """How many files are still to be made."""
        return len(self.missing_texts) + len(self.missing_views) + len(self.missing_masks)

    @property
    def missing_bytes(self) -> int:
        """What the latents that are still to be made will take on disk."""
        area = self.encoders.factor**2
        sizes = (view.item.bucket for view in self.missing_views)
        return sum(4 * self.encoders.channels * height * width // area for height, width in sizes)

    @property
    def missing_text_bytes(self) -> int:
        """What the captions that are still to be made will take on disk, often more than the latents; 0 = not known."""
        return self.caption_bytes * len(self.missing_texts)

    def run(self, device: str, advance: Advance) -> EncodedDataset:
        """Encode what is missing: first the captions, then the images, so that never both encoders are in memory.

        ``advance(done, total)`` is told after each file, and may raise to stop: what is done is on disk then.
        """
        refuse_full_disk(self.cache, self.missing_bytes, self.missing_text_bytes)
        progress = Progress(self.missing, advance)
        with torch.inference_mode(False), torch.no_grad():
            if self.missing_texts:
                with self.encoders.text(device) as encode_text:
                    self._encode_texts(encode_text, progress)
            if self.missing_views:
                with self.encoders.images(device) as encode_images:
                    self._encode_views(encode_images, progress)
            self._shrink_masks(progress)
            encoded = self._encoded(self.images, self.entries, self.captions.dropout)
            if self.held_out:  # which is told all that there is to tell
                encoded.held_out = self._encoded(self.held_out, self.kept_back, dropout=0.0)
            return encoded

    def _encoded(self, images: ImageFolder, entries: list[Entry], dropout: float) -> EncodedDataset:
        return EncodedDataset(images, self.encoders, self.cache, entries, self.text_keys, dropout)

    def _encode_texts(self, encode: EncodeText, progress: Progress) -> None:
        for done, text in enumerate(self.missing_texts, 1):
            # By itself, so that no other one changes how long it is padded.
            told = encode([text]) if isinstance(text, str) else encode([text[0]], pictures=[self._picture(text)])
            self.cache.save(TEXT, self.text_keys[text], {name: value.cpu() for name, value in told.items()})
            progress.add(1)
            if not self.caption_bytes:
                self._weigh_captions(self.text_keys[text], len(self.missing_texts) - done)

    def _picture(self, text: Text) -> Image.Image:
        """The picture beside which a caption is read."""
        view = self.texts[text]
        assert view is not None
        return to_picture(view.pixels(self.images.pixels))

    def _weigh_captions(self, key: str, missing: int) -> None:
        """The first encoded caption says how large they are: what is still missing must fit on the disk."""
        self.caption_bytes = self.cache.path(TEXT, key).stat().st_size
        needed = missing * self.caption_bytes
        each, rest = in_words(self.caption_bytes, "B"), in_words(needed, "B")
        log.info("an encoded caption takes %s, the %d that are missing %s", each, missing, rest)
        refuse_full_disk(self.cache, self.missing_bytes, needed)

    def _encode_views(self, encode: EncodeImages, progress: Progress) -> None:
        """The likeliest latents of each view, not a sample of the VAE's posterior, far narrower than any noise trained.

        Each by itself: in a batch the last bits of an image depend on how many others there are, and so on what else is
        in the folder and where an earlier encoding was stopped. (Alone it is no slower: one by one is faster on a CPU,
        and an image of 512 pixels fills an accelerator.)
        """
        # A mirrored view comes right behind its image, and is made of the same pixels.
        same = [(cut, list(views)) for cut, views in groupby(self.missing_views, lambda view: (view.item, view.place))]
        with ahead(lambda each: self.images.pixels(*each[0]), same) as decoded:
            for (_, views), pixels in zip(same, decoded, strict=True):
                for view in views:
                    self._encode_view(encode, view, pixels.flip(-1) if view.flipped else pixels)
                    progress.add(1)

    def _encode_view(self, encode: EncodeImages, view: View, pixels: Tensor) -> None:
        (latents,) = encode(pixels[None]).cpu()
        refuse_infinite(latents, view)
        self.cache.save(LATENTS, view.key, {"latents": latents, "moments": colours.moments(latents, pixels)})

    def _shrink_masks(self, progress: Progress) -> None:
        views = self.missing_masks.values()
        with ahead(lambda view: self.images.mask(view.item, view.place), views) as masks:
            for key, mask in zip(self.missing_masks, masks, strict=True):
                small = F.avg_pool2d(mask, self.encoders.factor)
                self.cache.save(MASKS, key, {"mask": (255 * small).round().byte()})
                progress.add(1)


class Progress:
    """Counts files, and says in the log now and then how long the rest will take."""

    def __init__(self, total: int, advance: Advance) -> None:
        self.done, self.total, self.advance = 0, total, advance
        self.begun = self.said = time.monotonic()
        advance(0, total)

    def add(self, count: int) -> None:
        self.done += count
        now = time.monotonic()
        if now - self.said > SECONDS_BETWEEN_LINES:
            left = round((now - self.begun) / self.done * (self.total - self.done))
            log.info("encoded %d of %d, %d:%02d left", self.done, self.total, left // 60, left % 60)
            self.said = now
        self.advance(self.done, self.total)


def refuse_unless_encodable(images: ImageFolder, encoders: Encoders) -> None:
    """Raises ValueError where these encoders cannot read these images."""
    if images.options.color != "RGB":
        raise ValueError("color: the model's VAE reads RGB; choose that in Image Folder Dataset")
    wrong = sorted({item.bucket for item in images.items if any(side % encoders.multiple for side in item.bucket)})
    if wrong:
        height, width = wrong[0]
        raise ValueError(
            f"size: the model takes images whose sides are multiples of {encoders.multiple}, not {height} x {width}: "
            "change size or resolutions in Image Folder Dataset"
        )
    if encoders.control == "none" and images.options.control:
        raise ValueError(
            f"control: this model ({encoders.family}) makes pictures of words alone and is shown none to change: clear "
            "it in Image Folder Dataset, or load a model that edits"
        )
    if encoders.control == "must" and not images.options.control:
        raise ValueError(
            f"control: this model ({encoders.family}) changes pictures: name the folder of those that it is shown in "
            "Image Folder Dataset"
        )
    if encoders.classes and not images.info.classes:
        raise ValueError(
            images.info.without_classes
            or f"the model knows {encoders.classes} classes and reads no captions: sort the images into sub-folders, "
            "one a class"
        )
    if encoders.classes and images.info.size is None:
        raise ValueError(
            "buckets: a model that knows classes takes squares of one size; turn them off in Image Folder Dataset, and "
            "clear resolutions"
        )


def refuse_infinite(latents: Tensor, view: View) -> None:
    """Raises ValueError, naming the image, for latents that are no numbers: some VAEs overflow in half precision."""
    if not latents.isfinite().all():
        raise ValueError(
            f"the VAE makes no finite numbers of {view.item.path}: choose storage fp32 in Load Pretrained, or another "
            "VAE there (vae)"
        )


def refuse_full_disk(cache: Cache, latents: int, captions: int) -> None:
    """Raises ValueError where so many bytes of latents and captions would not fit; 0 = captions of unknown size."""
    folder = next(parent for parent in (cache.folder, *cache.folder.absolute().parents) if parent.is_dir())
    free = shutil.disk_usage(folder).free
    if latents + captions > free:
        what = "latents and captions" if captions else "latents"
        there = f"{str(folder)!r} has {in_words(free, 'B')} left"
        raise ValueError(f"cache_folder: the {what} take {in_words(latents + captions, 'B')}, and {there}")
