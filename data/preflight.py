"""What is known of a data set before anything is loaded, in words."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from math import ceil
from pathlib import Path

from ..models.loading.weight_count import in_words
from .buckets import is_smaller
from .captions import SUFFIXES as CAPTION_SUFFIXES
from .captions import caption_file, read_caption
from .encoding import Encoding
from .images import ALPHA, ImageFolder, ImageItem
from .mixture import Mixture

NAMED = 3
"""At most so many files are named in one line."""


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Batches in which ``count`` items come once."""
    return ceil(count / batch_size)


def epoch_in_words(images: int, repeats: int, batch_size: int) -> str:
    """``24 images x 10 repeats / batch 4 = 60 steps per epoch``."""
    steps = steps_per_epoch(images * repeats, batch_size)
    items = f"{number_of(images, 'image')} x {number_of(repeats, 'repeat')}"
    return f"{items} / batch {batch_size} = {number_of(steps, 'step')} per epoch"


def steps_in_words(count: int, batch_size: int, steps: int, accumulation: int = 1) -> str:
    """How often ``steps`` updates go through ``count`` items (repeats included): ``100 steps = 1.7 epochs``."""
    epochs = steps * accumulation * batch_size / count
    return f"{number_of(steps, 'step')} = {epochs:.3g} epochs of {number_of(count, 'image')}"


def images_in_words(images: ImageFolder, batch_size: int) -> list[str]:
    """What was found in a folder of images, and what is odd about it."""
    return [
        epoch_in_words(len(images.items), images.repeats, batch_size),
        *damaged_in_words(images),
        *captions_in_words(images),
        *buckets_in_words(images),
        *masks_in_words(images),
    ]


def damaged_in_words(images: ImageFolder) -> list[str]:
    count = len(images.damaged)
    return [f"left out {number_of(count, 'damaged image')}: {some(images.damaged, '; ')}"] if count else []


def captions_in_words(images: ImageFolder) -> list[str]:
    """Captions found, missing, empty, without an image and shared. Nothing where there are no captions but classes."""
    texts = {item.path: caption_file(item.path) for item in images.items}
    found = {text for text in texts.values() if text}
    if not found and images.info.classes:
        return []
    missing = [path for path, text in texts.items() if text is None]
    instead = f"{images.default_caption!r} stands in" if images.default_caption else "empty"
    lines = [f"captions: {len(texts) - len(missing)} of {len(texts)}"]
    if missing and found:
        lines[0] += f"; none for {names(missing)} ({instead})"
    elif missing:
        lines[0] += f" ({instead})"
    if empty := sorted(text for text in found if not read_caption(text)):
        lines.append(f"{number_of(len(empty), 'caption file')} empty: {names(empty)}")
    if lonely := captions_without_image(images):
        lines.append(f"{number_of(len(lonely), 'caption file')} without an image: {names(lonely)}")
    sharing: dict[Path, list[Path]] = defaultdict(list)
    for path in texts:
        sharing[path.with_suffix("")].append(path)
    for twins in (twins for twins in sharing.values() if len(twins) > 1):
        text = texts[twins[0]]
        lines.append(f"{' and '.join(path.name for path in twins)} share {text.name if text else 'their name'}")
    return lines


def captions_without_image(images: ImageFolder) -> list[Path]:
    """Text files that no image has the name of: one of the two is misspelt."""
    named = {path.with_suffix("") for path in images.paths}
    texts = (path for suffix in CAPTION_SUFFIXES for path in images.folder.rglob(f"*{suffix}"))
    return sorted(path for path in texts if path.with_suffix("") not in named)


def buckets_in_words(images: ImageFolder) -> list[str]:
    """Sizes with their numbers of images, and how many of these are enlarged to fit."""
    counts = Counter(item.bucket for item in images.items)
    sizes = ", ".join(f"{height}x{width}: {count}" for (height, width), count in sorted(counts.items()))
    lines = [f"buckets (height x width): {sizes}"] if len(images.buckets) > 1 else []
    if small := [item for item in images.items if is_smaller(item.size, item.bucket)]:
        lines.append(f"{number_of(len(small), 'image')} enlarged, being smaller: {names_of(small)}")
    return lines


def masks_in_words(images: ImageFolder) -> list[str]:
    """Masks found, and images without one."""
    if not images.mask_folder:
        return []
    bare = [item for item in images.items if item.mask is None]
    kind = "transparency" if images.mask_folder == ALPHA else "masks"
    rest = f"; everything counts in {names_of(bare)}" if bare else ""
    return [f"{kind}: {len(images.items) - len(bare)} of {len(images.items)}{rest}"]


def mixture_in_words(mixture: Mixture, weights: Sequence[float], batch_size: int) -> list[str]:
    """Which share of the batches comes from each of the data sets, and how often their images come."""
    infos, total = [dataset.info for dataset in mixture.datasets], sum(weights)
    return [
        f"{info.name}: {weight / total:.0%} of the batches, an epoch in "
        f"{number_of(ceil(steps_per_epoch(info.count, batch_size) * total / weight), 'step')}"
        for info, weight in zip(infos, weights, strict=True)
    ]


def encoding_in_words(encoding: Encoding) -> list[str]:
    """What is to be encoded and what is there already."""
    texts, views = len(encoding.text_keys), encoding.views
    new_texts, new_views = len(encoding.missing_texts), len(encoding.missing_views)
    lines = [
        f"latents: {views - new_views} in the cache, {new_views} to encode ({in_words(encoding.missing_bytes, 'B')})"
    ]
    if texts:
        size = in_words(encoding.missing_text_bytes, "B") if encoding.caption_bytes else "on top of the latents"
        told = f"the empty one included{'; ' + size if new_texts else ''}"
        lines.append(f"captions: {texts - new_texts} in the cache, {new_texts} to encode ({told})")
    if encoding.images.crop == "random":
        lines.append("crop random: each image is cut once, at a place of its own, for its latents are kept")
    return lines


def number_of(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def some(words: list[str], between: str = ", ") -> str:
    more = f"{between}{len(words) - NAMED} more" if len(words) > NAMED else ""
    return between.join(words[:NAMED]) + more


def names(paths: list[Path]) -> str:
    return some([path.name for path in paths])


def names_of(items: list[ImageItem]) -> str:
    return names([item.path for item in items])
