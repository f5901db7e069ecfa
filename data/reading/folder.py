"""What lies in a folder of images: which file is a picture, a caption or a mask, and what is left out, and why.

Whoever looks into such a folder asks here, so that there is one rule for each of these.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from .plugins import plug_in

APPLE = frozenset({".heic", ".heif"})
"""Photos of Apple's phones."""

WITH_PLUGIN = APPLE | {".jxl"}
"""What Pillow reads with a plug-in only: these are found, so that they are named."""

PICTURES = WITH_PLUGIN | {
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif", ".bmp", ".gif", ".tif", ".tiff"),
    *(".tga", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".qoi"),
}
"""Suffixes of the pictures that are trained."""

OTHER_PICTURES = frozenset(
    {
        *(".cr2", ".cr3", ".nef", ".arw", ".dng", ".raf", ".orf", ".rw2", ".raw"),
        *(".psd", ".xcf", ".kra", ".svg", ".eps", ".ai", ".pdf", ".exr", ".hdr", ".dds", ".ico", ".icns", ".pcx"),
        *(".mp4", ".mov", ".webm", ".mkv", ".avi"),
    }
)
"""Suffixes of what people take for pictures too, and which must be converted."""

CAPTIONS = (".txt", ".caption", ".json")
"""Suffixes of the text beside a picture, the strongest first."""

TABLES = ("metadata.jsonl", "metadata.csv")
"""Captions of many pictures in one file (Hugging Face's image folders)."""

MASK, CONDITION = "-masklabel", "-condlabel"
"""Ends of the names of OneTrainer's masks and conditioning pictures: a-masklabel.png belongs to a.png."""

SYSTEM = frozenset({"__macosx", "$recycle.bin", "#recycle", "@eadir", "lost+found", "system volume information"})
"""Folders that systems make, beside those whose names begin with a dot."""
SYSTEM_FILES = frozenset({"thumbs.db", "desktop.ini"})

HIDDEN, UNREADABLE, BROKEN = "hidden or system", "may not be read", "links to nothing, or no plain file"
MASK_ALONE, CONDITIONS = "mask without its picture", "conditioning picture (-condlabel)"


@dataclass(frozen=True)
class Listing:
    """The files below a folder, each in one place."""

    folder: Path
    pictures: tuple[Path, ...] = ()
    """Sorted by name: what a seed means depends on their order."""
    masks: Mapping[Path, Path] = field(default_factory=dict)
    """OneTrainer's masks by their pictures."""
    captions: Mapping[Path, Path] = field(default_factory=dict)
    """The strongest caption file of each picture that has one."""
    stray: tuple[Path, ...] = ()
    """Caption files that no picture has the name of: one of the two is misspelt."""
    tables: tuple[Path, ...] = ()
    left_out: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    """Pictures, and folders of them, that are not trained, by the reason."""
    unread: tuple[Path, ...] = ()
    """Files of other kinds."""

    def files(self) -> list[Path]:
        """All that training depends on."""
        return [*self.pictures, *self.masks.values(), *self.captions.values(), *self.tables]


def find_images(folder: Path) -> list[Path]:
    """All pictures below the folder, sorted by name; raises ValueError where there is no folder or no picture."""
    return list(listing_of(folder).pictures)


def listing_of(folder: Path) -> Listing:
    """What lies below a folder; raises ValueError where there is no folder or no picture."""
    found = look_into(folder)
    if not found.pictures:
        instead = "; left out: " + "; ".join(left_out_in_words(found)) if found.left_out or found.unread else ""
        raise ValueError(f"the folder {str(folder)!r} holds no images ({', '.join(sorted(PICTURES))}){instead}")
    return found


def look_into(folder: Path) -> Listing:
    """What lies below a folder, be there a picture or not; raises ValueError where there is no folder."""
    if not folder.is_dir():
        hint = f" (without the spaces around it, {str(folder).strip()!r} does)" if _exists_stripped(folder) else ""
        raise ValueError(f"the folder {str(folder)!r} does not exist{hint}")
    left_out: dict[str, list[Path]] = defaultdict(list)
    found = sort_out(folder, sorted(files_below(folder, left_out)), left_out)
    plug_in(path.suffix.lower() for path in found.pictures)
    return found


def files_below(folder: Path, left_out: dict[str, list[Path]], above: frozenset[Path] = frozenset()) -> Iterator[Path]:
    """All files in a folder and its sub-folders, linked ones too; ``above`` are the real folders that it is in.

    What is hidden, broken or closed comes into ``left_out`` where it is or holds a picture.
    """
    here = folder.resolve()
    if here in above:  # a link that leads back
        return
    try:
        paths = list(folder.iterdir())
    except PermissionError:
        left_out[UNREADABLE].append(folder)
        return
    for path in paths:
        try:
            is_folder = path.is_dir()
        except PermissionError:  # its folder may be listed and not entered, or it is a link into one that is closed
            left_out[UNREADABLE].append(path)
            continue
        if is_folder:
            if is_hidden(path):
                if any(is_picture(file) for file in path.rglob("*")):
                    left_out[HIDDEN].append(path)
            else:
                yield from files_below(path, left_out, above | {here})
        elif is_hidden(path):
            if is_picture(path):
                left_out[HIDDEN].append(path)
        elif path.is_file():
            yield path
        elif is_picture(path):
            left_out[BROKEN].append(path)


def sort_out(folder: Path, paths: Iterable[Path], left_out: dict[str, list[Path]]) -> Listing:
    """Each file where it belongs."""
    kinds: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        kinds[kind_of(path)].append(path)
    of_name = {key_of(path): path for path in reversed(kinds["picture"])}  # where two share a name, the first
    masks = {}
    for mask in kinds[MASK]:
        if picture := of_name.get(key_of(mask, MASK)):
            masks[picture] = mask
        else:
            left_out[MASK_ALONE].append(mask)
    if kinds[CONDITION]:
        left_out[CONDITIONS] += kinds[CONDITION]
    texts: dict[Path, Path] = {}
    stray: list[Path] = []
    unread = kinds["other"]
    for text in sorted(kinds["caption"], key=strength):
        if key_of(text) in of_name:
            texts.setdefault(key_of(text), text)
        else:
            (unread if text.suffix.lower() == ".json" else stray).append(text)
    return Listing(
        folder,
        pictures=tuple(kinds["picture"]),
        masks=masks,
        captions={path: texts[key_of(path)] for path in kinds["picture"] if key_of(path) in texts},
        stray=tuple(sorted(stray)),
        tables=tuple(kinds["table"]),
        left_out={reason: tuple(sorted(found)) for reason, found in left_out.items()},
        unread=tuple(sorted(unread)),
    )


def kind_of(path: Path) -> str:
    """``picture``, ``caption``, ``table``, one of OneTrainer's ends, or ``other``."""
    if is_picture(path):
        return next((end for end in (MASK, CONDITION) if path.stem.lower().endswith(end)), "picture")
    if path.name.lower() in TABLES:
        return "table"
    return "caption" if path.suffix.lower() in CAPTIONS else "other"


def is_picture(path: PurePath) -> bool:
    return path.suffix.lower() in PICTURES


def is_hidden(path: PurePath) -> bool:
    """Whether people do not see it: programs keep copies and thumbnails in such places."""
    name = path.name.lower()
    return name.startswith(".") or name in SYSTEM or name in SYSTEM_FILES


def key_of(path: Path, end: str = "") -> Path:
    """What a picture, its caption and its mask share: folder and stem, however accents are written (Macs part them)."""
    stem = path.stem[: len(path.stem) - len(end)]
    return path.with_name(unicodedata.normalize("NFC", stem) or path.name)


def strength(text: Path) -> tuple[int, bool, Path]:
    """The order among caption files of one picture: by suffix, and ``.txt`` before ``.TXT``."""
    suffix = text.suffix.lower()
    return CAPTIONS.index(suffix), suffix != text.suffix, text


def repeats_and_words(folder: str) -> tuple[int, str]:
    """What a folder's name says to kohya's trainers: ``10_sks dog`` is ten repeats and a caption.

    (1, "") for any other name, a year in front included.
    """
    found = re.fullmatch(r"0*([1-9]\d{0,2})_\s*(\S.*)", folder)
    return (int(found[1]), found[2].strip()) if found else (1, "")


def printable(name: str) -> str:
    """A name as it can stand in a line: newlines and other controls become question marks."""
    return "".join(letter if letter.isprintable() else "?" for letter in name)


def left_out_in_words(listing: Listing) -> list[str]:
    """One line for each reason, with some names, and one for each kind of file that is not read."""
    lines = [
        f"{reason}: {', '.join(printable(place.relative_to(listing.folder).as_posix()) for place in places[:3])}"
        + (f", {len(places) - 3} more" if len(places) > 3 else "")
        for reason, places in listing.left_out.items()
    ]
    kinds: dict[str, list[Path]] = defaultdict(list)
    for path in listing.unread:
        kinds[path.suffix.lower() or "without a suffix"].append(path)
    for kind, paths in sorted(kinds.items()):
        remedy = " (convert to JPEG or PNG)" if kind in OTHER_PICTURES else ""
        count = f"{len(paths)} file{'s' * (len(paths) > 1)}"
        lines.append(f"not read: {count} {kind}{remedy}, e.g. {printable(paths[0].name)}")
    return lines


def survey(folder: Path) -> dict[str, Any]:
    """What a person wants to see of a folder, as paths below it: ``masks`` by their pictures, ``beside`` (pictures that
    are not trained by themselves: masks and conditioning pictures), and ``left_out``, in words.

    Raises ValueError where there is no folder.
    """
    listing = look_into(folder)

    def below(path: Path) -> str:
        return path.relative_to(folder).as_posix()

    apart = [path for reason in (MASK_ALONE, CONDITIONS) for path in listing.left_out.get(reason, ())]
    return {
        "masks": {below(picture): below(mask) for picture, mask in listing.masks.items()},
        "beside": sorted(map(below, [*listing.masks.values(), *apart])),
        "left_out": left_out_in_words(listing),
    }


def _exists_stripped(folder: Path) -> bool:
    stripped = str(folder).strip()
    return stripped != str(folder) and Path(stripped).is_dir()
