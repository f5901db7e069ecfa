"""Weights files (safetensors): written whole, checked, and read without ever unpickling anything."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from .whole import whole_or_nothing


def save_weights(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file; ``metadata`` may hold the ``workflow`` that a canvas reads back."""
    from safetensors.torch import save_file

    with whole_or_nothing(path) as unfinished:
        unfinished.touch()
        mode = unfinished.stat().st_mode & 0o777  # as any other file's: safetensors lets nobody but its owner read
        kept = {name: value.detach().contiguous() for name, value in tensors.items()}
        save_file(kept, unfinished, {"format": "pt", **metadata})
        unfinished.chmod(mode)


def save_checked(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """As :func:`save_weights`, for files that people take away: read again, to the bit, before it takes its place.

    Raises ValueError if it is not what was meant to be written.
    """
    with whole_or_nothing(path) as unfinished:
        save_weights(unfinished, tensors, metadata)
        verify_weights(unfinished, tensors, metadata)


def verify_weights(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Raises ValueError if a file does not hold these; one tensor at a time is in memory."""
    from safetensors import safe_open

    if not (metadata.items() <= read_metadata(path).items()):
        raise ValueError(f"{path.name} was not written as it should be: its metadata differ")
    with safe_open(path, framework="pt") as file:
        names = set(file.keys())
        wrong = names ^ tensors.keys() or {
            name for name in names if not same_bits(file.get_tensor(name), tensors[name])
        }
    if wrong:
        raise ValueError(
            f"{path.name} was not written as it should be, e.g. {min(wrong)}: is the disk full or failing?"
        )


def digest_of(tensors: Mapping[str, Tensor], text: str = "") -> str:
    """A checksum (BLAKE2b) of names, kinds, shapes and all bits, and of a text that belongs to them."""

    def one(name: str) -> bytes:
        value = tensors[name].detach().cpu().contiguous()
        digest = hashlib.blake2b(repr((name, str(value.dtype), tuple(value.shape))).encode(), digest_size=16)
        if value.numel():
            digest.update(value.reshape(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]
        return digest.digest()

    with ThreadPoolExecutor() as pool:
        parts = pool.map(one, sorted(tensors))
        return hashlib.blake2b(b"".join([text.encode(), *parts]), digest_size=16).hexdigest()


def same_bits(first: Tensor, second: Tensor) -> bool:
    second = second.detach().cpu()
    return first.dtype == second.dtype and torch.equal(first, second)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file; raises ValueError, naming the file, if it is damaged or cut short."""
    from safetensors.torch import load_file

    check_weights(path)
    return load_file(path)


def check_weights(path: Path) -> None:
    """Look at the header only, which says how long the file must be; raises ValueError if it is not whole."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt"):
            pass
    except SafetensorError as error:
        raise ValueError(f"the weights file {path} is damaged or cut short ({error}): copy it again") from error


def read_metadata(path: Path) -> dict[str, str]:
    """The words in a safetensors file's header; raises ValueError, naming the file, if it is damaged."""
    from safetensors import safe_open

    check_weights(path)
    with safe_open(path, framework="pt") as file:
        return file.metadata() or {}


@dataclass(frozen=True)
class Header:
    """A tensor in a file that was not read: diffusers looks at names and shapes to know a checkpoint."""

    shape: tuple[int, ...]

    @property
    def ndim(self) -> int:
        return len(self.shape)


def header(path: str | Path) -> dict[str, Header]:
    """Names and shapes of the tensors in a safetensors file; raises ValueError if it is not whole."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return {name: Header(tuple(file.get_slice(name).get_shape())) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"the weights file {path} is damaged or cut short ({error}): copy it again") from error
