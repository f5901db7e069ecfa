"""Encode once, shard by shard: all captions first, then all pictures, so that never both encoders are in memory.

A shard's captions and its latents are two files, each kept by what it was made from: other captions settings leave the
latents as they are. Several machines that share the cache share the work.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

import numpy as np
import torch

from ...diffusion import seeds
from ..encodings import colours
from ..encodings.cache import Cache, key_of
from ..encodings.encoders import EncodeImages, Encoders, EncodeText
from ..encodings.encoding import SHORT, Advance, Progress, refuse_full_disk
from ..reading.ahead import ahead
from ..reading.captions import CaptionSettings
from ..reading.cropping import Place
from .encoded import EncodedShards
from .images import ShardImages
from .index import NO_CAPTION
from .store import Store

FORMAT = 1
LOOKED_AT = 100
"""Captions that are read to see whether they are too long: those of all shards would take as long as encoding them."""
AT_A_TIME = 64
"""Pictures whose files are asked for together."""


class ShardEncoding:
    """What is to be encoded of shards, and by what. Nothing is loaded before :meth:`run`.

    Raises ValueError where pictures and encoders do not go together.
    """

    def __init__(self, images: ShardImages, encoders: Encoders, captions: CaptionSettings, cache: Cache) -> None:
        refuse_unless_encodable(images, encoders)
        self.images, self.encoders, self.captions, self.cache = images, encoders, captions, cache
        self.reads_text = not encoders.classes
        self.store = Store(cache.folder / "shards")
        shards = range(len(images.index.shards.paths))
        digests = [
            hashlib.blake2b(images.index.rows_of(shard).tobytes(), digest_size=16).hexdigest() for shard in shards
        ]
        of = [(images.index.shards.keys[shard], digests[shard]) for shard in shards]
        how = images.options
        cut = (images.buckets, how.enlarges, how.max_aspect_ratio, how.crop, how.flip, how.background)
        said = (captions.trigger_word, captions.shuffle_tags, captions.variants, captions.keep_tags)
        self.latent_keys = [f"latents-{key_of(FORMAT, encoders.image_identity, cut, *each)}" for each in of]
        self.text_keys = (
            [f"text-{key_of(FORMAT, encoders.text_identity, said, images.default_caption, *each)}" for each in of]
            if self.reads_text
            else []
        )
        self.missing_views = self._missing(self.latent_keys) * self.views
        self.missing_texts = self._missing(self.text_keys)

    @property
    def views(self) -> int:
        """Of each picture: as it is, and mirrored if it may be."""
        return 2 if self.images.options.flip else 1

    def _missing(self, keys: list[str]) -> int:
        """How many pictures are in shards that are not encoded."""
        index = self.images.index
        return sum(len(index.rows_of(shard)) for shard, key in enumerate(keys) if not self.store.has(key))

    @property
    def missing(self) -> int:
        """How many captions' pictures, and views, are still to be encoded."""
        return self.missing_texts + self.missing_views

    @property
    def missing_bytes(self) -> int:
        """What the latents that are still to be made will take on disk."""
        area = 4 * self.encoders.channels / self.encoders.factor**2
        of_bucket = np.array([height * width * area * self.views for height, width in self.images.sizes])
        starts = self.images.index.starts
        return int(
            sum(
                of_bucket[self.images.bucket_of[starts[shard] : starts[shard + 1]]].sum()
                for shard, key in enumerate(self.latent_keys)
                if not self.store.has(key)
            )
        )

    def cut_captions(self) -> tuple[list[int], int, int]:
        """Pictures of whose captions a part is cut off, among those with the longest ones; how many these are, and how
        many tokens are read. Loads the tokenizers.
        """
        if not self.reads_text:
            return [], 0, 0
        rows = self.images.index.rows
        lengths = np.where(
            rows["kind"] == NO_CAPTION, len(self.images.default_caption.encode()), rows["caption_length"]
        )
        longest = np.argpartition(-lengths.astype(np.int64), min(LOOKED_AT, len(lengths)) - 1)[:LOOKED_AT]
        numbers = sorted(number for number in longest.tolist() if lengths[number] > SHORT)
        if not numbers:
            return [], 0, 0
        texts = [self.captions.variants_of(caption) for caption in self.images.captions(numbers)]
        cut, most = self.encoders.longer_than_read(list(dict.fromkeys(text for variants in texts for text in variants)))
        found = [number for number, variants in zip(numbers, texts, strict=True) if {*cut} & {*variants}]
        return found, len(numbers), most

    def run(self, device: str, advance: Advance) -> EncodedShards:
        """Encode what is missing. ``advance(done, total)`` is told after each picture, and may raise to stop.

        The shards that are done are on disk then.
        """
        refuse_full_disk(self.cache, self.missing_bytes, 0)
        progress = Progress(self.missing, advance)
        with torch.inference_mode(False), torch.no_grad():
            if self.missing_texts:
                with self.encoders.text(device) as encode:
                    self._make(
                        self.text_keys, lambda shard, key: self._encode_texts(shard, key, encode, progress), progress
                    )
            if self.missing_views:
                with self.encoders.images(device) as encode_images:
                    self._make(
                        self.latent_keys,
                        lambda shard, key: self._encode_views(shard, key, encode_images, progress),
                        progress,
                        self.views,
                    )
        return EncodedShards(
            self.images, self.encoders, self.store, self.latent_keys, self.text_keys, self.captions.dropout
        )

    def _make(self, keys: list[str], encode: Callable[[int, str], None], progress: Progress, each: int = 1) -> None:
        def others(shard: int) -> None:
            progress.add(0 if shard < 0 else each * len(self.images.index.rows_of(shard)))

        self.store.make(keys, encode, others)

    def _chunks(self, shard: int) -> Iterator[list[int]]:
        first, end = self.images.index.starts[shard : shard + 2].tolist()
        return (list(range(start, min(start + AT_A_TIME, end))) for start in range(first, end, AT_A_TIME))

    def _encode_texts(self, shard: int, key: str, encode: EncodeText, progress: Progress) -> None:
        """Each caption by itself, so that no other one changes how long it is padded; equal ones once."""
        numbers = {"": 0}
        count: list[int] = []
        which: list[int] = []
        with self.store.written(key) as writer:

            def put(text: str) -> tuple[int, int]:
                told = {name: value.cpu() for name, value in encode([text]).items()}
                return writer.add(f"{len(places):08d}", told, text)

            places: list[tuple[int, int]] = []
            places.append(put(""))
            for chunk in self._chunks(shard):
                for caption in self.images.captions(chunk):
                    variants = self.captions.variants_of(caption)
                    for text in variants:
                        if text not in numbers:
                            numbers[text] = len(places)
                            places.append(put(text))
                    count.append(len(variants))
                    which += [numbers[text] for text in variants]
                    progress.add(1)
            start, length = zip(*places, strict=True)
            writer.arrays = {
                "start": np.array(start, np.uint64),
                "length": np.array(length, np.uint32),
                "count": np.array(count, np.uint8),
                "which": np.array(which, np.uint32),
            }

    def _encode_views(self, shard: int, key: str, encode: EncodeImages, progress: Progress) -> None:
        """The likeliest latents of each view, each by itself, as :class:`Encoding` makes them of a folder's."""
        places: list[tuple[int, int]] = []
        cuts: list[tuple[float, float]] = []
        total = torch.zeros(())
        with self.store.written(key) as writer:
            for chunk in self._chunks(shard):
                files = zip(chunk, self.images.read(chunk), strict=True)
                with ahead(lambda file: self._decoded(*file), files) as decoded:
                    for number, (cut, pixels) in zip(chunk, decoded, strict=True):
                        for view in range(self.views):
                            shown = pixels.flip(-1) if view else pixels
                            (latents,) = encode(shown[None]).cpu()
                            self._refuse_infinite(latents, number)
                            places.append(writer.add(f"{len(places):08d}", {"latents": latents}))
                            if not view:
                                total = total + colours.moments(latents, shown)
                            progress.add(1)
                        cuts.append(cut)
            start, length = zip(*places, strict=True) if places else ((), ())
            known = self.encoders.channels + 1
            writer.arrays = {
                "start": np.array(start, np.uint64).reshape(-1, self.views),
                "length": np.array(length, np.uint32).reshape(-1, self.views),
                "cut": np.array(cuts, np.float32).reshape(-1, 2),
                "moments": (total if places else torch.zeros(known, known + 3, dtype=torch.float64)).numpy(),
            }

    def _decoded(self, number: int, data: bytes) -> tuple[Place, torch.Tensor]:
        """Where a picture is cut, and what is left. A random cut is drawn once, by what it holds, as a folder's is."""
        content = hashlib.blake2b(data, digest_size=16).hexdigest()
        cut = self.images.options.place(seeds.generator(0, content, "crop"))
        return cut, self.images.pixels(number, data, cut)

    def _refuse_infinite(self, latents: torch.Tensor, number: int) -> None:
        if not latents.isfinite().all():
            raise ValueError(
                f"the VAE makes no finite numbers of {self.images.index.path(number)}: choose storage fp32 in Load "
                "Pretrained, or another VAE there (vae)"
            )


def refuse_unless_encodable(images: ShardImages, encoders: Encoders) -> None:
    """Raises ValueError where these encoders cannot read these pictures."""
    if images.options.color != "RGB":
        raise ValueError("color: the model's VAE reads RGB; choose that in Shard Dataset")
    wrong = [size for size in images.sizes if any(side % encoders.multiple for side in size)]
    if wrong:
        height, width = wrong[0]
        raise ValueError(
            f"size: the model takes images whose sides are multiples of {encoders.multiple}, not {height} x {width}: "
            "change size in Shard Dataset"
        )
    if encoders.control == "must":
        raise ValueError(
            f"dataset: this model ({encoders.family}) changes pictures, and shards have none to be changed: take Image "
            "Folder Dataset with control"
        )
    if encoders.classes and not images.info.classes:
        raise ValueError(images.info.without_classes)
    if encoders.classes and images.info.size is None:
        raise ValueError(
            "buckets: a model that knows classes takes squares of one size; turn them off in Shard Dataset"
        )
