"""The samples of a tar file, read once from front to end.

WebDataset's convention: members that follow one another and share the name up to the first dot of its last part are
one sample: ``cats/3.jpg``, ``cats/3.txt``, ``cats/3.cls``. Its library reads such files as streams only; an exact
order, an exact resume and a generator for each item need every item at any time, so reading is ours, and the standard
library's tarfile says where each member lies.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from itertools import groupby
from pathlib import PurePosixPath
from typing import IO, NamedTuple

from ...files.text import LARGEST, decoded
from ..reading.caption_files import caption_in_json
from ..reading.folder import CAPTIONS, is_hidden, is_picture

CLASS = ".cls"
MOST_CLASSES = 1 << 16
NO_LABEL = -1
BUFFER = 1 << 20


class Member(NamedTuple):
    """A file in a tar file."""

    name: str
    header: int
    """Where its first header begins."""
    start: int
    """Where its bytes begin."""
    data: bytes

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.name).suffix.lower()


@dataclass
class Sample:
    """What is trained together."""

    picture: Member
    caption: Member | None = None
    """The strongest of its texts."""
    label: int = NO_LABEL
    others: list[Member] = field(default_factory=list)
    """Its further pictures, which are not trained: a sample is one picture."""


class Torn(ValueError):
    """A tar file that is damaged or cut short; what comes before is whole."""


def samples_of(file: IO[bytes]) -> Iterator[Sample]:
    """The samples in which there is a picture. Raises Torn at the end of what can be read."""
    for _, group in groupby(members_of(file), key=lambda member: key_of(member.name)):
        members = list(group)
        pictures = [member for member in members if is_picture(PurePosixPath(member.name))]
        if pictures:
            # img.jpg and img.mask.png: the one of the plain name is the sample's picture.
            first = min(pictures, key=lambda member: extension(member.name).count("."))
            texts = [member for member in members if member.suffix in CAPTIONS]
            caption = min(texts, key=lambda member: CAPTIONS.index(member.suffix), default=None)
            label = next((label_in(member.data) for member in members if member.suffix == CLASS), NO_LABEL)
            yield Sample(first, caption, label, [member for member in pictures if member is not first])


def members_of(file: IO[bytes]) -> Iterator[Member]:
    """What training may need of the files in a tar file, in their order, without those that are hidden."""
    try:
        tar = tarfile.open(fileobj=file, mode="r|", bufsize=BUFFER)  # noqa: SIM115  # it owns nothing
        while (info := tar.next()) is not None:
            tar.members.clear()  # type: ignore[attr-defined]  # which would keep them all
            path = PurePosixPath(info.name)
            wanted = is_picture(path) or path.suffix.lower() in (*CAPTIONS, CLASS)
            if not info.isreg() or not wanted or not key_of(info.name) or is_hidden(path):
                continue
            opened = tar.extractfile(info)
            assert opened is not None
            yield Member(info.name, info.offset, info.offset_data, opened.read())
    except (tarfile.TarError, EOFError) as error:
        raise Torn(str(error)) from error
    if (rest := file_after(file, tar.offset)) is not None and any(rest):
        raise Torn("its end is damaged")
    elif rest is None:
        raise Torn("its end is missing")


def file_after(file: IO[bytes], offset: int) -> bytes | None:
    """The block at which tarfile stopped, which it does without a word; None where there is no whole one.

    A whole file ends in a block of zeros.
    """
    file.seek(offset)
    block = file.read(tarfile.BLOCKSIZE)
    return block if len(block) == tarfile.BLOCKSIZE else None


def key_of(name: str) -> str:
    """What the members of a sample share; empty for names that are of none."""
    path = PurePosixPath(name)
    stem = path.name.partition(".")[0]
    return str(path.with_name(stem)) if stem and not (stem.startswith("__") and stem.endswith("__")) else ""


def extension(name: str) -> str:
    """All from the first dot of a name's last part on."""
    return PurePosixPath(name).name.partition(".")[2]


def label_in(data: bytes) -> int:
    """The class in a ``.cls`` file, a whole number; NO_LABEL for anything else."""
    text = data.strip()
    return int(text) if text.isdigit() and len(text) < 10 and int(text) < MOST_CLASSES else NO_LABEL


def caption_in(data: bytes, is_json: bool) -> str | None:
    """The caption that a member holds; None for JSON without one. Raises ValueError where it cannot be decoded."""
    if len(data) > LARGEST:
        raise ValueError(f"is larger than {LARGEST >> 20} MiB, so it is no caption")
    text = decoded(data).text
    return caption_in_json(text) if is_json else text.strip()


def name_at(header: bytes) -> str:
    """The name in the headers of a member."""
    with tarfile.open(fileobj=BytesIO(header), mode="r:") as tar:
        first = tar.firstmember  # type: ignore[attr-defined]
    if first is None:
        raise ValueError("there is no file")
    return first.name
