"""What encoders made, kept on disk by the content that it was made from."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from ...files.full import is_full
from ...files.weights import check_weights, read_weights, save_weights

log = logging.getLogger(__name__)

CHUNK = 1 << 16


def key_of(*parts: object) -> str:
    """A short name for these facts: equal facts have equal names, others different ones."""
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()


def content_of(path: Path) -> str:
    """A short name for all bytes of a file."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def fingerprint(path: Path, samples: int = 32) -> str:
    """A short name for a large weights file: its length, its header and some chunks from all over it.

    Reading all of it would take as long as loading it. Two files with the same header and other weights differ
    everywhere, so they differ in the samples.
    """
    length = path.stat().st_size
    digest = hashlib.blake2b(str(length).encode(), digest_size=16)
    with path.open("rb") as file:
        for number in range(samples):
            file.seek(max(0, length - CHUNK) * number // (samples - 1))
            digest.update(file.read(CHUNK))
    return digest.hexdigest()


class Cache:
    """A folder of safetensors files, one for each thing that was encoded. Nothing half-written is ever seen."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, kind: str, key: str) -> Path:
        return self.folder / kind / f"{key}.safetensors"

    def has(self, kind: str, key: str) -> bool:
        """Whether it is there and whole; a damaged file is named in the log and removed."""
        path = self.path(kind, key)
        if not path.is_file():
            return False
        try:
            check_weights(path)
        except ValueError as error:
            log.warning("encoding once more, for %s", error)
            path.unlink()
            return False
        return True

    def save(self, kind: str, key: str, tensors: Mapping[str, Tensor]) -> None:
        """Raises ValueError, with the remedy, where the disk is full; what was saved before is whole."""
        try:
            save_weights(self.path(kind, key), tensors, {})
        except Exception as error:
            if not is_full(error):
                raise
            raise ValueError(
                f"cache_folder: {str(self.folder)!r} is on a disk that is full; what is encoded so far is kept, and it "
                "goes on from there: make room, or choose another cache_folder"
            ) from error

    def load(self, kind: str, key: str) -> dict[str, Tensor]:
        """Raises ValueError, with the remedy, where it is gone since it was looked for."""
        return read_weights(self._there(kind, key))

    def load_one(self, kind: str, key: str, name: str) -> Tensor:
        """One of the tensors, without reading the others; raises ValueError as :meth:`load` does."""
        from safetensors import SafetensorError, safe_open

        path = self._there(kind, key)
        try:
            with safe_open(path, framework="pt") as file:
                tensor: Tensor = file.get_tensor(name)
                return tensor
        except SafetensorError as error:
            raise ValueError(f"{path} is damaged ({error}): run Encode Dataset again") from error

    def _there(self, kind: str, key: str) -> Path:
        path = self.path(kind, key)
        if not path.is_file():
            raise ValueError(
                f"{path} is gone from the cache: run Encode Dataset again, with a changed option inside ComfyUI"
            )
        return path
