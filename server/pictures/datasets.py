"""Data sets: folders of pictures with their captions beside them, in the studio's own folder or elsewhere."""

import hashlib
import os
import re
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from ..guard.inside import Outside, inside
from .captions import FOREIGN, Caption, Conflict, read_caption, write_caption
from .captions import SUFFIXES as CAPTIONS
from .elsewhere import KEY

WITH_PLUGIN = (".heic", ".heif", ".jxl")
PICTURES = (
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif", ".bmp", ".gif", ".tif", ".tiff"),
    *(".tga", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".qoi", *WITH_PLUGIN),
)
"""What the trainer finds in a folder, so that nothing is trained, or left out as unreadable, that is not shown."""
MOST_FILES = 100_000
MOST_SEEN = 1_000_000
"""Names of files of any kind that are looked through for pictures."""
LONGEST_NAME = 80
SMALLEST = 256  # pixels of the shorter side, below which a picture is told to be small
MOST_OBLONG = 2.0
"""A picture that is more than so many times as long as it is wide loses a part in every bucket."""

Facts = tuple[int, int, int, int]
"""Time of the last change (ns), bytes, width and height; 0 x 0 for a file that is no picture."""


Survey = Callable[[Path], Mapping[str, Any]]
"""From a folder to ``masks`` by picture, ``beside`` (masks and the like) and ``left_out``, as the trainer reads it."""
NOTHING_SAID: Mapping[str, Any] = {"masks": {}, "beside": (), "left_out": ()}


def check_name(name: str) -> str:
    """A data set's name: one plain folder name. Raises Outside."""
    if name.startswith(".") or len(name) > LONGEST_NAME or "/" in name or name != name.strip():
        raise Outside(f"{name[:LONGEST_NAME]!r} is no name for a data set: take up to {LONGEST_NAME} letters")
    return name


class Datasets:
    """All data sets below one folder. What was measured of a picture is remembered until its file changes.

    Folders ``elsewhere``, by their keys, are shown too, and their captions edited; nothing else is written there.
    """

    def __init__(
        self, folder: Path, survey: Survey | None = None, elsewhere: Callable[[], Mapping[str, Path]] = dict
    ) -> None:
        """``survey`` tells what the trainer would make of a folder's files: masks, and what is left out and why."""
        self.folder = folder
        self._elsewhere = elsewhere
        self._survey = survey or (lambda folder: NOTHING_SAID)
        self._facts: dict[Path, Facts] = {}
        self._digests: dict[tuple[Path, int], str] = {}
        self._writing = threading.Lock()

    def names(self) -> list[str]:
        found = self.folder.iterdir() if self.folder.is_dir() else ()
        visible = (path for path in found if path.is_dir() and not path.is_symlink() and path.name[0] != ".")
        return sorted((path.name for path in visible), key=str.casefold)

    def listed(self) -> list[dict[str, Any]]:
        """The studio's own, counted, and those elsewhere, which may be huge and are not looked through."""
        own = self.folder.resolve()
        others = [(key, place) for key, place in self._elsewhere().items() if place != own and own not in place.parents]
        return [self.summary(name) for name in self.names()] + [
            {"name": key, "title": place.name, "path": str(place), "elsewhere": True} for key, place in others
        ]

    def summary(self, name: str) -> dict[str, Any]:
        pictures = pictures_below(self.own(name))
        return {"name": name, "path": str(self.own(name)), "pictures": len(pictures), "first": pictures[:1]}

    def create(self, name: str) -> str:
        """A new, empty data set; a number is added to a name that is taken."""
        check_name(name)
        for number in range(1, 1000):
            free = name if number == 1 else f"{name} {number}"
            folder = inside(self.folder, free)
            try:
                folder.mkdir(parents=True)
            except FileExistsError:
                continue
            return free
        raise FileExistsError(name)

    def place(self, name: str) -> Path:
        """The folder of a data set, or of a key. Raises Outside, FileNotFoundError."""
        if not name.startswith(KEY):
            return self.own(name)
        place = self._elsewhere().get(name)
        if place is None:
            raise FileNotFoundError(name)
        return place

    def own(self, name: str) -> Path:
        """The folder of a data set of the studio's own. Raises Outside, FileNotFoundError."""
        folder = inside(self.folder, check_name(name))
        if folder.parent != self.folder.resolve() or not folder.is_dir():
            raise FileNotFoundError(folder)
        return folder

    def picture(self, name: str, relative: str) -> Path:
        """A picture of a data set. Raises Outside, FileNotFoundError."""
        path = inside(self.place(name), relative)
        if path.suffix.lower() not in PICTURES or not path.is_file():
            raise FileNotFoundError(path)
        return path

    def entries(self, name: str) -> list[dict[str, Any]]:
        """Every picture with its size, its caption, its mask and what is odd about it."""
        return self.shown(name)[0]

    def first(self, name: str, most: int) -> list[dict[str, Any]]:
        """The first entries, at once: no other picture is opened, so that duplicates and masks are not told yet."""
        folder = self.place(name)
        return [self._entry(folder, relative) for relative in pictures_below(folder)[:most]]

    def shown(self, name: str) -> tuple[list[dict[str, Any]], list[str]]:
        """The entries of all pictures that are trained, and what is left out, in words."""
        folder = self.place(name)
        said = self._survey(folder)
        masks, beside = said["masks"], set(said["beside"])
        entries = [self._entry(folder, relative) for relative in pictures_below(folder) if relative not in beside]
        for entry in entries:
            if mask := masks.get(entry["picture"]):
                entry["mask"] = mask
        for first, *others in self._doubles(folder, entries):
            for entry in others:
                entry["flags"].append("duplicate")
                entry["same_as"] = first["picture"]
        return entries, list(said["left_out"])

    def _entry(self, folder: Path, relative: str) -> dict[str, Any]:
        path = folder / relative
        _, size, width, height = self._measured(path)
        caption = read_caption(path, folder)
        return {
            "picture": relative,
            "bytes": size,
            "width": width,
            "height": height,
            "caption": caption.text,
            "version": caption.version,
            "flags": list(flags(width, height, caption)),
        }

    def _measured(self, path: Path) -> Facts:
        try:
            facts = path.stat()
        except OSError:  # in a folder that may be listed and not entered, or gone by now
            return 0, 0, 0, 0
        known = self._facts.get(path)
        if known is None or known[:2] != (facts.st_mtime_ns, facts.st_size):
            if len(self._facts) > MOST_FILES:
                self._facts.clear()
            known = (facts.st_mtime_ns, facts.st_size, *upright_size(path))
            if known[2]:  # what could not be read may be readable later: the survey brings Pillow's plug-ins in
                self._facts[path] = known
        return known

    def _doubles(self, folder: Path, entries: Iterable[dict[str, Any]]) -> list[list[dict[str, Any]]]:
        """Groups of pictures whose files are the same; only those of equal size are read."""
        by_size = defaultdict(list)
        for entry in entries:
            if "unreadable" not in entry["flags"]:
                by_size[entry["bytes"]].append(entry)
        by_content = defaultdict(list)
        for entry in (entry for alike in by_size.values() if len(alike) > 1 for entry in alike):
            by_content[self._digest(folder / entry["picture"])].append(entry)
        return [alike for alike in by_content.values() if len(alike) > 1]

    def _digest(self, path: Path) -> str:
        key = (path, path.stat().st_mtime_ns)
        if key not in self._digests:
            if len(self._digests) > MOST_FILES:
                self._digests.clear()
            self._digests[key] = hashlib.sha256(path.read_bytes()).hexdigest()
        return self._digests[key]

    def edit(self, name: str, changes: list[tuple[str, str, str]]) -> list[dict[str, Any]]:
        """Write ``(picture, caption, version that was seen)``; tells of each what is there now.

        One that somebody else changed meanwhile is left as it is, and marked ``conflict``.
        """
        return [self._edit(name, *change) for change in changes]

    def _edit(self, name: str, relative: str, text: str, was: str) -> dict[str, Any]:
        self.picture(name, relative)  # or refuses
        folder, told = self.place(name), {}
        path = folder / relative  # the caption lies beside a link, not beside what it links to
        with self._writing:
            try:
                now = write_caption(path, folder, text, was)
            except Conflict as conflict:
                now, told = conflict.now, {"conflict": True}
        _, _, width, height = self._measured(path)
        shown = {"picture": relative, "caption": now.text, "version": now.version}
        return {**shown, "flags": list(flags(width, height, now)), **told}


def pictures_below(folder: Path) -> list[str]:
    """Paths of all pictures, hidden files and folders left out, in the order of people: 2 before 10."""
    found: list[str] = []
    seen = 0
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name[0] not in "._"]
        below = Path(root).relative_to(folder)
        found += [(below / name).as_posix() for name in names if is_picture(name)]
        seen += len(names) + len(folders)
        if len(found) > MOST_FILES or seen > MOST_SEEN:
            break
    return sorted(found, key=natural)[:MOST_FILES]


def is_picture(name: str) -> bool:
    return name[0] != "." and name.lower().endswith(PICTURES)


def is_caption(name: str) -> bool:
    return name[0] != "." and name.lower().endswith(CAPTIONS)


def natural(name: str) -> list[tuple[int, str]]:
    """A key by which numbers in names are sorted as numbers."""
    return [(int(part), "") if part.isdecimal() else (0, part.casefold()) for part in re.split(r"(\d+)", name)]


def upright_size(path: Path) -> tuple[int, int]:
    """Width and height as a person sees it, from the file's header; (0, 0) if it is no picture."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    except Exception:  # a damaged file makes Pillow raise almost anything
        return 0, 0
    return (height, width) if turned else (width, height)


def flags(width: int, height: int, caption: Caption) -> Iterable[str]:
    if not width:
        yield "unreadable"
    elif min(width, height) < SMALLEST:
        yield "small"
    if width and max(width, height) > MOST_OBLONG * min(width, height):
        yield "oblong"
    if caption.version == FOREIGN:
        yield "linked"
    elif not caption.text:
        yield "no caption"
