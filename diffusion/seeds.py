"""Random numbers that depend on their name, not on who drew before."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derive(seed: int, *name: object) -> int:
    """A seed in 0..2**63-1 for ``name``, e.g. (node id, step): equal names give equal seeds, others unrelated ones."""
    digest = hashlib.blake2b(repr((seed, *name)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(seed: int, *name: object, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh generator for ``name``."""
    return torch.Generator(device).manual_seed(derive(seed, *name))


@contextmanager
def global_seed(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Lend the global generator to code that takes no other (weight initialisation, dropout), then put it back."""
    device = torch.device(device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else [], device_type="cuda"):
        torch.manual_seed(seed)
        yield
