"""What is known of shards before anything is loaded, in words."""

from __future__ import annotations

import numpy as np

from ...models.loading.weight_count import in_words
from ..preflight import epoch_in_words, names, number_of, some
from .encoding import ShardEncoding
from .images import ShardImages
from .index import NO_CAPTION, names_in


def shards_in_words(images: ShardImages, batch_size: int, reads_text: bool | None = None) -> list[str]:
    """What was found in shards, and what training will do with it.

    ``reads_text`` = whether the model reads captions, or knows classes; None = that is not known yet.
    """
    shards = images.index.shards
    return [
        epoch_in_words(len(images.index), images.options.repeats, batch_size),
        f"{number_of(len(shards.paths), 'shard')}, {in_words(sum(shards.sizes), 'B')}",
        *left_out_in_words(images),
        *(classes_in_words(images) if not reads_text else []),
        *(captions_in_words(images) if reads_text is not False else []),
        *buckets_in_words(images, batch_size),
    ]


def left_out_in_words(images: ShardImages) -> list[str]:
    """Damaged samples and shards, and pictures beside the one of their sample."""
    torn = sum(found.torn for found in images.index.found)
    others = sum(found.others for found in images.index.found)
    said = some(list(dict.fromkeys(names_in(images.index))), "; ")
    lines = []
    if images.left_out or torn:
        shards = f", {number_of(torn, 'shard')} damaged" if torn else ""
        lines.append(f"left out {number_of(images.left_out, 'unreadable image')}{shards}: {said}")
    if others:
        lines.append(f"not trained, being further images of a sample: {others}")
    return lines


def classes_in_words(images: ShardImages) -> list[str]:
    """Classes with their numbers of images."""
    if not images.info.classes:
        return []
    counts = np.bincount(images.index.rows["label"])
    return [f"classes, for models that know them: {some([f'{name} {count}' for name, count in enumerate(counts)])}"]


def captions_in_words(images: ShardImages) -> list[str]:
    """Captions found, and what stands in for those that are missing."""
    kinds = images.index.rows["kind"]
    missing = kinds == NO_CAPTION
    found = len(kinds) - int(missing.sum())
    if not found and images.info.classes and not images.default_caption:
        return []
    line = f"captions: {found} of {len(kinds)}"
    if found == len(kinds):
        return [line]
    instead = f"{images.default_caption!r} stands in" if images.default_caption else "empty"
    more = f", {len(kinds) - found - 1} more" if len(kinds) - found > 1 else ""
    first = f"; none for {images.index.path(int(np.argmax(missing))).name}{more}" if found else ""
    return [f"{line}{first} ({instead})"]


def buckets_in_words(images: ShardImages, batch_size: int) -> list[str]:
    """Sizes with their numbers of images, how many are enlarged to fit, and where a batch is larger than its bucket."""
    rows, counts = images.index.rows, np.bincount(images.bucket_of, minlength=len(images.sizes)).tolist()
    named = [f"{height}x{width}: {count}" for (height, width), count in zip(images.sizes, counts, strict=True)]
    lines = [f"buckets (height x width): {', '.join(named)}"] if len(images.buckets) > 1 else []
    heights, widths = np.array(images.sizes)[images.bucket_of].T
    small = int(((rows["height"] < heights) | (rows["width"] < widths)).sum())
    if small:
        lines.append(f"{number_of(small, 'image')} enlarged, being smaller")
    few = [name for name, count in zip(named, counts, strict=True) if count < batch_size]
    if few:
        lines.append(
            f"fewer images than the batch ({batch_size}), which holds some several times: {some(few)}; lower "
            "batch_size or add images"
        )
    return lines


def shard_encoding_in_words(encoding: ShardEncoding) -> list[str]:
    """What is to be encoded and what is there already."""
    count = len(encoding.images.index)
    views, texts = encoding.missing_views, encoding.missing_texts
    there = count * encoding.views - views
    lines = [f"latents: {there} in the cache, {views} to encode ({in_words(encoding.missing_bytes, 'B')})"]
    if encoding.reads_text:
        lines.append(f"captions: of {number_of(count - texts, 'image')} in the cache, of {texts} to encode")
    lines += cut_in_words(encoding)
    if encoding.images.options.crop == "random":
        lines.append("crop random: each image is cut once, at a place of its own, for its latents are kept")
    return lines


def cut_in_words(encoding: ShardEncoding) -> list[str]:
    """Which captions are longer than the encoder reads, as far as the longest tell."""
    cut, looked_at, most = encoding.cut_captions()
    if not cut:
        return []
    called = names([encoding.images.index.path(number) for number in cut])
    are = "is" if len(cut) == 1 else "are"
    return [
        f"of the {number_of(looked_at, 'longest caption')}, {len(cut)} {are} longer than the {most} tokens that the "
        f"encoder reads, and cut: {called}"
    ]
