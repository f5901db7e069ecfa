"""What encoders made of a shard: one tar of safetensors files, and arrays that say where each lies; whole or not there.

Any machine that sees the folder may make a shard's, and exactly one does: whoever holds its lock.
"""

from __future__ import annotations

import json
import logging
import shutil
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from torch import Tensor

from ...files.lock import Taken, held
from ...files.whole import make_folder, whole_or_nothing
from .source import Part, Shards, opened

log = logging.getLogger(__name__)

DATA, ARRAYS, LOCKS = "data.tar", "where.npz", "locks"
WAIT = 2.0
"""Seconds before it is looked again whether others have made what is missing."""

Arrays = dict[str, np.ndarray]


class Store:
    """A folder with what was encoded, by keys."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def arrays(self, key: str) -> Arrays | None:
        """Where the parts of a shard lie; None where it is not encoded, or damaged."""
        place = self.folder / key
        try:
            with np.load(place / ARRAYS, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            if arrays.pop("size") == (place / DATA).stat().st_size:
                return arrays
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            log.warning("encoding a shard once more, for %s is damaged: %s", place, error)
            return None
        log.warning("encoding a shard once more, for %s is damaged: it was cut short", place)
        return None

    def has(self, key: str) -> bool:
        return self.arrays(key) is not None

    @contextmanager
    def written(self, key: str) -> Iterator[Writer]:
        """A new shard, there once all of it is written."""
        with whole_or_nothing(self.folder / key) as unfinished:
            unfinished.mkdir()
            with tarfile.open(unfinished / DATA, "w") as tar:
                writer = Writer(tar)
                yield writer
            size = (unfinished / DATA).stat().st_size
            with (unfinished / ARRAYS).open("wb") as file:
                np.savez(file, size=np.array(size), **writer.arrays)  # type: ignore[arg-type]

    def make(self, keys: Sequence[str], encode: Callable[[int, str], None], wait: Callable[[int], None]) -> None:
        """``encode(number, key)`` what is not there yet; what others are making is waited for.

        ``wait(number)`` is told of a shard that others have made; and with -1, now and then, that it still is waited.
        """
        left = [number for number, key in enumerate(keys) if not self.has(key)]
        while left:
            before = len(left)
            for number in list(left):
                if self.has(keys[number]):
                    wait(number)
                elif not self._made(number, keys[number], encode):
                    continue
                left.remove(number)
            if len(left) == before:
                wait(-1)
                time.sleep(WAIT)
        self._unlock(keys)

    def _unlock(self, keys: Sequence[str]) -> None:
        """Remove the locks of shards that are all there: whoever still asks for one finds the shard first."""
        for key in keys:
            shutil.rmtree(self.folder / LOCKS / key, ignore_errors=True)

    def _made(self, number: int, key: str, encode: Callable[[int, str], None]) -> bool:
        """Make it, if nobody else does."""
        lock = self.folder / LOCKS / key
        make_folder(lock)
        try:
            with held(lock):
                if self.has(key):  # since we asked
                    return False
                encode(number, key)
        except Taken:
            return False
        except FileNotFoundError:
            if lock.is_dir():
                raise
            return False  # others have made all that is missing, and removed the locks
        return True

    def shards(self, keys: Sequence[str]) -> Shards:
        """All of them, to be read from."""
        paths = [str(self.folder.absolute() / key / DATA) for key in keys]
        places = [opened(path) for path in paths]
        sizes = tuple(Path(path).stat().st_size for path in paths)
        return Shards(places[0][0], tuple(path for _, path in places), sizes, tuple(keys))


class Writer:
    """Adds files to a tar, and says where each lies."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self.tar = tar
        self.arrays: Arrays = {}
        """What is kept beside the tar."""

    def add(self, name: str, tensors: Mapping[str, Tensor], caption: str = "") -> tuple[int, int]:
        """Where the file begins, and how long it is. Names are short and plain, so that their header is one block."""
        from safetensors.torch import save

        data = save({name: value.detach().contiguous() for name, value in tensors.items()}, {"caption": caption})
        info = tarfile.TarInfo(f"{name}.safetensors")
        info.size = len(data)
        start = self.tar.offset + tarfile.BLOCKSIZE
        self.tar.addfile(info, BytesIO(data))
        return start, len(data)


def unpacked(data: bytes) -> tuple[dict[str, Tensor], str]:
    """What :meth:`Writer.add` was given. Raises ValueError where it is damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(data)
        header: dict[str, Any] = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"an encoded shard is damaged ({error}): remove it and run Encode Dataset again") from error
    return tensors, header["__metadata__"]["caption"]


class Places:
    """Where the parts of many shards lie: two numbers each, in arrays."""

    def __init__(self, shards: Shards, of_shard: Sequence[Arrays]) -> None:
        """Each shard's ``start`` and ``length`` (parts, ...)."""
        self.shards = shards
        self.starts = np.cumsum([0, *(len(arrays["start"]) for arrays in of_shard)])
        """(shards + 1,): the number of each shard's first part."""
        self.start = np.concatenate([arrays["start"] for arrays in of_shard])
        self.length = np.concatenate([arrays["length"] for arrays in of_shard])

    def read(self, parts: Sequence[tuple[int, Any]]) -> list[tuple[dict[str, Tensor], str]]:
        """The files of these: each a shard and the place of the file in the arrays."""
        wanted = [Part(shard, int(self.start[place]), int(self.length[place])) for shard, place in parts]
        return [unpacked(data) for data in self.shards.read(wanted)]
