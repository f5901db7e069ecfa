"""The index of shards: where each picture lies and what is known of it, in 37 bytes of numpy, never as an object.

Each shard's rows are kept in a file of their own, by where the shard is, its size and its times: a second start reads
these, a shard more costs that shard, and an indexing that was stopped goes on. Many machines may share the folder.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath
from threading import Event
from zipfile import BadZipFile

import numpy as np
import PIL

from ...files.whole import whole_or_nothing
from ..encodings.cache import key_of
from ..reading.folder import printable
from ..reading.pictures import look
from .samples import NO_LABEL, Sample, Torn, caption_in, name_at, samples_of
from .source import Part, Shards

log = logging.getLogger(__name__)

NO_CAPTION, TEXT, JSON = range(3)
"""What holds a picture's caption."""

ROW = np.dtype(
    [
        ("start", "<u8"),
        ("length", "<u4"),
        ("lead", "<u4"),  # bytes of the headers in front, in which the name is
        ("caption", "<u8"),
        ("caption_length", "<u4"),
        ("label", "<i4"),
        ("height", "<u2"),  # as a person sees it
        ("width", "<u2"),
        ("kind", "u1"),  # of caption
    ]
)
FORMAT = 1
NAMED = 3
"""At most so much of a shard is named."""

Advance = Callable[[int, int], None]
"""``advance(done, total)`` is told how many shards are indexed, and may raise to stop."""


@dataclass(frozen=True)
class Found:
    """What is in one shard."""

    rows: np.ndarray
    """(pictures,) of ROW, in the order of the file."""
    left_out: int = 0
    """Samples that are not trained, being damaged."""
    others: int = 0
    """Further pictures of a sample, which are not trained."""
    torn: bool = False
    said: tuple[str, ...] = ()
    """What is wrong with the first of them, and with the file."""


@dataclass(frozen=True)
class Index:
    """All pictures of all shards, numbered through."""

    shards: Shards
    rows: np.ndarray
    """(pictures,) of ROW."""
    starts: np.ndarray
    """(shards + 1,): the number of each shard's first picture, and how many there are in all."""
    found: tuple[Found, ...]
    """By shard, without their rows."""

    def __len__(self) -> int:
        return len(self.rows)

    def shard_of(self, number: int) -> int:
        return int(np.searchsorted(self.starts, number, side="right")) - 1

    def rows_of(self, shard: int) -> np.ndarray:
        return self.rows[self.starts[shard] : self.starts[shard + 1]]

    def picture(self, number: int) -> Part:
        row = self.rows[number]
        return Part(self.shard_of(number), int(row["start"]), int(row["length"]))

    def captions(self, numbers: list[int], default: str) -> list[str]:
        """The captions of these pictures; ``default`` for those that have none."""
        there = [number for number in numbers if self.rows[number]["kind"] != NO_CAPTION]
        parts = [
            Part(self.shard_of(number), int(row["caption"]), int(row["caption_length"]))
            for number, row in ((number, self.rows[number]) for number in there)
        ]
        texts = {
            number: caption_in(data, self.rows[number]["kind"] == JSON)
            for number, data in zip(there, self.shards.read(parts), strict=True)
        }
        return [texts.get(number) if number in texts else default for number in numbers]  # type: ignore[misc]

    def path(self, number: int) -> Path:
        """What to call a picture: its shard and its name there, or its number where that cannot be read now."""
        shard, row = self.shard_of(number), self.rows[number]
        lead = int(row["lead"])
        try:
            name = name_at(*self.shards.read([Part(shard, int(row["start"]) - lead, lead)]))
        except (OSError, ValueError):
            name = f"picture {number - int(self.starts[shard])}"
        return Path(self.shards.paths[shard], name)


def index_of(shards: Shards, folder: Path | None, advance: Advance = lambda done, total: None) -> Index:
    """What is in the shards; those that are not known by the files in ``folder`` are read once, from front to end.

    Raises ValueError where there is no picture in them, and OSError where one cannot be read.
    """
    found: dict[int, Found] = {}
    stopped = Event()
    total = len(shards.paths)
    advance(0, total)
    with ThreadPoolExecutor() as pool:
        jobs = {pool.submit(found_in, shards, number, folder, stopped): number for number in range(total)}
        try:
            for job in as_completed(jobs):
                found[jobs[job]] = job.result()
                advance(len(found), total)
        except BaseException:
            stopped.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    each = [found[number] for number in range(total)]
    if not any(len(one.rows) for one in each):
        why = next((line for one in each for line in one.said), "they hold no picture files")
        raise ValueError(f"shards: there is no picture in {shards.paths[0]!r}{and_more(total - 1)}: {why}")
    starts = np.cumsum([0, *(len(one.rows) for one in each)])
    rows = np.concatenate([one.rows for one in each])
    told = tuple(Found(one.rows[:0].copy(), one.left_out, one.others, one.torn, one.said) for one in each)
    return Index(shards, rows, starts, told)


def found_in(shards: Shards, number: int, folder: Path | None, stopped: Event) -> Found:
    """What is in one shard: as it is known, or by reading it."""
    if folder is None:
        return read_through(shards, number, stopped)
    path = folder / f"{key_of(FORMAT, shards.keys[number], PIL.__version__)}.npz"
    if (known := read_found(path)) is not None:
        return known
    found = read_through(shards, number, stopped)
    try:
        write_found(path, found)
    except (OSError, ValueError) as error:
        log.info("the index of a shard could not be kept: %s", error)
    return found


def read_through(shards: Shards, number: int, stopped: Event) -> Found:
    """Read a shard from front to end, and look at each of its pictures."""
    path = shards.paths[number]
    rows: list[tuple[int, ...]] = []
    said: list[str] = []
    left_out, others, torn = 0, 0, False
    try:
        with shards.files.open(path, "rb") as file:
            for sample in samples_of(file):
                if stopped.is_set():
                    raise InterruptedError(f"indexing {path} was stopped")
                others += len(sample.others)
                try:
                    rows.append(row_of(path, sample))
                except ValueError as error:
                    left_out += 1
                    said.append(printable(str(error)))
    except Torn as error:
        torn = True
        instead = "copy it again" if rows else "a compressed one must be unpacked"
        said.insert(0, f"{path} is no whole tar file ({error}), {len(rows)} pictures of it are read: {instead}")
    except Exception as error:
        if isinstance(error, InterruptedError):
            raise
        raise OSError(f"cannot read {path}: {' '.join(str(error).split()) or type(error).__name__}") from error
    return Found(np.array(rows, ROW), left_out, others, torn, tuple(said[:NAMED]))


def row_of(path: str, sample: Sample) -> tuple[int, ...]:
    """What is kept of a sample. Raises ValueError, naming it, where it cannot be trained."""
    picture = sample.picture
    seen = look(Path(path, picture.name), BytesIO(picture.data))
    if seen.damage:
        raise ValueError(seen.damage)
    if max(seen.size) >= 1 << 16:
        raise ValueError(f"cannot read {path}/{picture.name}: a side is longer than 65,535 pixels")
    place, length, kind = 0, 0, NO_CAPTION
    if (text := sample.caption) is not None:
        is_json = text.suffix == ".json"
        try:
            if caption_in(text.data, is_json) is not None:
                place, length, kind = text.start, len(text.data), JSON if is_json else TEXT
        except ValueError as error:
            raise ValueError(f"{path}/{text.name} {error}") from error
    lead = picture.start - picture.header
    return picture.start, len(picture.data), lead, place, length, sample.label, *seen.size, kind


def write_found(path: Path, found: Found) -> None:
    counts = np.array([found.left_out, found.others, found.torn])
    with whole_or_nothing(path, durable=False) as unfinished, unfinished.open("wb") as file:
        np.savez(file, rows=found.rows, counts=counts, said=np.array(found.said, dtype=np.str_))


def read_found(path: Path) -> Found | None:
    """What a file of the index holds; None where it is missing or damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            rows, (left_out, others, torn), said = file["rows"], file["counts"].tolist(), file["said"].tolist()
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return None
    return Found(rows, left_out, others, bool(torn), tuple(said)) if rows.dtype == ROW else None


def classes_of(index: Index) -> tuple[tuple[str, ...], str]:
    """The numbers of the classes, as names, and nothing to say; none where pictures have none, and why that is so."""
    labels = index.rows["label"]
    without = int((labels == NO_LABEL).sum())
    if not without:
        return tuple(map(str, range(int(labels.max()) + 1))), ""
    if without == len(labels):
        return (), "the shards hold no classes: put a .cls file with its number beside each picture"
    first = index.path(int(np.argmax(labels == NO_LABEL)))
    return (), f"{first} has no class{and_more(without - 1)}: put a .cls file with its number beside each picture"


def and_more(count: int) -> str:
    return f" and {count} more" if count else ""


def names_in(index: Index) -> Iterator[str]:
    """The first words on what is wrong, of all shards."""
    return (line for one in index.found for line in one.said)


def base_name(path: str) -> str:
    return PurePosixPath(path).name
