"""What is known of a data set before anything is loaded, in words."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from math import ceil
from pathlib import Path

from ..models.loading.weight_count import in_words
from .encodings.encoding import Encoding
from .mixture import Mixture
from .reading.buckets import Size, is_smaller
from .reading.folder import left_out_in_words, printable, repeats_and_words
from .reading.images import ImageFolder, ImageItem
from .reading.options import ALPHA

NAMED = 3
"""At most so many files are named in one line."""

TOO_MUCH = 0.1
"""The share of a picture above which it is said that a crop loses it."""


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Batches in which ``count`` items come once."""
    return ceil(count / batch_size)


def epoch_in_words(
    images: int, repeats: int, batch_size: int, places: int | None = None, resolutions: Sequence[int] = ()
) -> str:
    """``24 images x 10 repeats / batch 4 = 60 steps per epoch``.

    ``places`` counts an image in each of the ``resolutions``, and with the repeats of its folder.
    """
    places = images if places is None else places
    steps = steps_per_epoch(places * repeats, batch_size)
    why = f"at {', '.join(map(str, resolutions))}" if len(resolutions) > 1 else "with the repeats of their folders"
    counted = f" ({places} {why})" if places != images else ""
    items = f"{number_of(images, 'image')}{counted} x {number_of(repeats, 'repeat')}"
    return f"{items} / batch {batch_size} = {number_of(steps, 'step')} per epoch"


def resolutions_of(images: ImageFolder) -> list[int]:
    """The sizes in which each image comes; none where that is one."""
    return images.resolutions if len(images.resolutions) > 1 else []


def steps_in_words(count: int, batch_size: int, steps: int, accumulation: int = 1) -> str:
    """How often ``steps`` updates go through ``count`` items (repeats included): ``100 steps = 1.7 epochs``."""
    epochs = steps * accumulation * batch_size / count
    return f"{number_of(steps, 'step')} = {epochs:.3g} epochs of {number_of(count, 'image')}"


def images_in_words(images: ImageFolder, batch_size: int, reads_text: bool | None = None) -> list[str]:
    """What was found in a folder of images, and what training will do with it.

    ``reads_text`` = whether the model reads captions, or knows classes; None = that is not known yet.
    """
    return [
        epoch_in_words(
            len(images.pictures), images.options.repeats, batch_size, len(images.order), resolutions_of(images)
        ),
        *validation_in_words(images),
        *folders_in_words(images),
        *(f"left out, {line}" if not line.startswith("not") else line for line in left_out_in_words(images.listing)),
        *damaged_in_words(images),
        *(classes_in_words(images) if not reads_text else []),
        *(captions_in_words(images, bool(reads_text)) if reads_text is not False else []),
        *buckets_in_words(images),
        *crops_in_words(images),
        *copies_in_words(images, batch_size),
        *masks_in_words(images),
        *controls_in_words(images),
    ]


def validation_in_words(images: ImageFolder) -> list[str]:
    """Which images are kept back."""
    if images.held_out is None:
        return []
    kept = images.held_out.pictures
    return [f"validation: {number_of(len(kept), 'image')} not trained, for the validation loss: {names_of(kept)}"]


def folders_in_words(images: ImageFolder) -> list[str]:
    """What kohya's folder names were taken to say."""
    folders = Counter(
        item.path.relative_to(images.folder).parts[0] for item in images.pictures if is_kohyas(images, item)
    )
    told = [f"{name} x {repeats_and_words(name)[0]}" for name in sorted(folders)]
    return [f"folder names as kohya's trainers read them (kohya_folders): {some(told)}"] if told else []


def is_kohyas(images: ImageFolder, item: ImageItem) -> bool:
    """Whether a folder's name says how often this image comes."""
    name = item.path.relative_to(images.folder).parts[0]
    return images.options.kohya_folders and name != item.path.name and bool(repeats_and_words(name)[1])


def damaged_in_words(images: ImageFolder) -> list[str]:
    count = len(images.damaged)
    return [f"left out {number_of(count, 'unreadable image')}: {some(images.damaged, '; ')}"] if count else []


def classes_in_words(images: ImageFolder) -> list[str]:
    """Classes with their numbers of images."""
    counts = Counter(item.label for item in images.pictures)
    named = [f"{name} {counts[label]}" for label, name in enumerate(images.info.classes)]
    return [f"classes, for models that know them: {some(named)}"] if named else []


def captions_in_words(images: ImageFolder, reads_text: bool = False) -> list[str]:
    """Captions found, missing, empty, decoded, without an image and shared.

    Nothing where there are no captions but classes, unless it is known that the model reads text.
    """
    found = {item.source: item for item in images.pictures if item.source}
    missing = [item for item in images.pictures if item.source is None]
    if not found and images.info.classes and not reads_text and not any(item.caption for item in missing):
        return []
    rest = ""
    if missing:
        instead = what_stands_in(images, missing)
        rest = f"; none for {names_of(missing)} ({instead})" if found else f" ({instead})"
    lines = [f"captions: {len(images.pictures) - len(missing)} of {len(images.pictures)}{rest}"]
    if empty := [item for item in images.pictures if item.source and not item.caption]:
        lines.append(f"{number_of(len(empty), 'caption')} empty: {names_of(empty)}")
    return [*lines, *decoded_in_words(images), *loose_captions_in_words(images), *shared_captions_in_words(images)]


def loose_captions_in_words(images: ImageFolder) -> list[str]:
    """What is there for captions, and is none of an image here."""
    lines = []
    if without := images.captions.without:
        lines.append(f"{number_of(len(without), 'JSON file')} without a caption: {names(without)}")
    if stray := images.listing.stray:
        lines.append(f"{number_of(len(stray), 'caption file')} without an image: {names(list(stray))}")
    if absent := images.captions.absent:
        lines.append(f"{number_of(len(absent), 'caption')} of images that are not here: {some(absent)}")
    if repeated := images.captions.repeated:
        lines.append(f"{number_of(len(repeated), 'later caption')} in place of earlier ones: {some(repeated)}")
    return lines


def shared_captions_in_words(images: ImageFolder) -> Iterator[str]:
    """Images that have one caption file, for their names differ in the suffix only."""
    sharing: dict[Path, list[ImageItem]] = defaultdict(list)
    for item in images.pictures:
        sharing[item.path.with_suffix("")].append(item)
    for twins in (twins for twins in sharing.values() if len(twins) > 1):
        source = twins[0].source
        yield f"{', '.join(twin.path.name for twin in twins)} share {source.name if source else 'their name'}"


def what_stands_in(images: ImageFolder, missing: Sequence[ImageItem]) -> str:
    """What images without a caption are trained with."""
    if images.default_caption:
        return f"{images.default_caption!r} stands in"
    words = sorted({repr(item.caption) for item in missing if item.caption})
    if not words:
        return "empty"
    bare = sum(not item.caption for item in missing)
    rest = f", {bare} empty" if bare else ""
    return f"the words of their folders stand in: {some(words)}{rest}"


def decoded_in_words(images: ImageFolder) -> list[str]:
    """Which caption files are not UTF-8, and what they were taken for."""
    files: dict[str, set[Path]] = defaultdict(set)
    for item in images.pictures:
        if item.source and item.encoding != "utf-8":
            files[item.encoding].add(item.source)
    return [
        f"{number_of(len(paths), 'caption file')} decoded as {encoding}: {names(sorted(paths))}"
        for encoding, paths in sorted(files.items())
    ]


def buckets_in_words(images: ImageFolder) -> list[str]:
    """Sizes with their numbers of images, and how many of these are enlarged to fit."""
    counts = Counter(item.bucket for item in images.items)
    sizes = ", ".join(f"{height}x{width}: {count}" for (height, width), count in sorted(counts.items()))
    lines = [f"buckets (height x width): {sizes}"] if len(images.buckets) > 1 else []
    if small := each_once(item for item in images.items if is_smaller(item.size, item.bucket)):
        lines.append(f"{number_of(len(small), 'image')} enlarged, being smaller: {names_of(small)}")
    return lines


def each_once(items: Iterable[ImageItem]) -> list[ImageItem]:
    """The first item of each image."""
    first: dict[Path, ImageItem] = {}
    for item in items:
        first.setdefault(item.path, item)
    return list(first.values())


def crops_in_words(images: ImageFolder) -> list[str]:
    """Which images lose more than a tenth when they are cut, the worst first, and what to do."""
    cut = each_once(sorted((item for item in images.items if item.lost > TOO_MUCH), key=lambda item: -item.lost))
    if not cut:
        return []
    worst = some([f"{item.path.name} {item.lost:.0%}" for item in cut])
    height, width = cut[0].size
    ratio = max(height / width, width / height)
    if not images.options.buckets:
        remedy = "buckets keep oblong images oblong"
    elif ratio > images.options.max_aspect_ratio:
        remedy = f"raise max_aspect_ratio, {ratio:.2g} for the first"
    else:
        remedy = "a larger size has more buckets"
    return [f"{number_of(len(cut), 'image')} cut by more than a tenth: {worst}; {remedy}"]


def copies_in_words(images: ImageFolder, batch_size: int) -> list[str]:
    """Where a batch is larger than the images that it may hold, so that it holds one several times."""
    if len(images.buckets) == 1:
        few = [f"all {number_of(len(images.items), 'image')}"] if len(images.items) < batch_size else []
    else:
        counts = Counter(item.bucket for item in images.items)
        few = [f"{height}x{width} ({count})" for (height, width), count in sorted(counts.items()) if count < batch_size]
    if not few:
        return []
    return [
        f"fewer images than the batch ({batch_size}), which holds some several times: {some(few)}; lower batch_size or "
        "add images"
    ]


def masks_in_words(images: ImageFolder) -> list[str]:
    """Masks found, images without one, and masks that are not used."""
    if not images.has_masks:
        return []
    bare = [item for item in images.pictures if item.mask is None]
    kind = "transparency" if images.options.mask_folder == ALPHA else "masks"
    rest = f"; everything counts in {names_of(bare)}" if bare else ""
    lines = [f"{kind}: {len(images.pictures) - len(bare)} of {len(images.pictures)}{rest}"]
    if images.options.mask_folder and (unused := sorted(images.listing.masks.values())):
        lines.append(f"not used, for there is a mask_folder: {names(unused)}")
    return lines


def controls_in_words(images: ImageFolder) -> list[str]:
    """Pairs found, and those whose two pictures are cut differently, having other sides."""
    if not images.options.control:
        return []
    apart = [item for item in images.pictures if item.control and is_oblong_otherwise(item.size, item.control_size)]
    lines = [f"control: {number_of(len(images.pictures), 'pair')}"]
    if apart:
        lines.append(f"control: other proportions than their image, and cut differently: {names_of(apart)}")
    return lines


def is_oblong_otherwise(size: Size, other: Size) -> bool:
    """Whether two pictures have sides in ratios that differ by more than a hundredth."""
    return abs(size[0] * other[1] / (size[1] * other[0]) - 1) > 0.01


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
    lines += cut_in_words(encoding)
    if encoding.images.options.crop == "random":
        lines.append("crop random: each image is cut once, at a place of its own, for its latents are kept")
    return lines


def cut_in_words(encoding: Encoding) -> list[str]:
    """Which captions are longer than the encoder reads."""
    items, most = encoding.cut_captions()
    if not items:
        return []
    what = "1 caption is" if len(items) == 1 else f"{len(items)} captions are"
    return [f"{what} longer than the {most} tokens that the encoder reads, and cut: {names_of(items)}"]


def number_of(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def some(words: list[str], between: str = ", ") -> str:
    """The first words, and how many more; all in one line, whatever a file is called."""
    more = f"{between}{len(words) - NAMED} more" if len(words) > NAMED else ""
    return printable(between.join(words[:NAMED])) + more


def names(paths: list[Path]) -> str:
    return some([path.name for path in paths])


def names_of(items: Sequence[ImageItem]) -> str:
    return names([item.path for item in items])
