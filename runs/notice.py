"""How long it takes to write a state here, which matters to those whom a cluster gives seconds before it ends them."""

from __future__ import annotations

import logging
import tempfile
import time
from pathlib import Path

import torch

from ..files.weights import digest_of
from ..files.whole import flush
from ..models.loading.weight_count import in_words

log = logging.getLogger(__name__)

NOTICE = 30.0
"""Seconds that clusters give between SIGTERM and the end."""
SPARE = 5.0
"""Of these, the seconds kept for the step under way and for what comes after the state."""
LARGE = 10**9
"""Bytes of a state from which it is worth a look how long it takes."""
PROBE = 1 << 26
"""Bytes that are written to find out."""
SLOW = 5e7
"""Bytes a second that are counted on where nothing was written yet: those of an old disk, or a network drive."""


def seconds_for(size: int, folder: Path) -> float:
    """Seconds that so many bytes take, checksum and flush included, by what a few of them take. May raise OSError."""
    some = torch.randint(256, (PROBE,), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with tempfile.TemporaryDirectory(dir=folder, prefix=".probe-", ignore_cleanup_errors=True) as nearby:
        path, begun = Path(nearby) / "probe", time.monotonic()
        digest_of({"probe": some})
        path.write_bytes(some.numpy().data)
        flush(path)
        return (time.monotonic() - begun) * size / PROBE


def tell_how_long(size: int, folder: Path) -> None:
    """Say in the log how long a large state takes to be written here, and what follows from it."""
    if size < LARGE:
        return
    try:
        seconds = seconds_for(size, folder)
    except OSError:  # a full disk has been told of already
        return
    words = f"a state is {in_words(size, 'B')} and takes about {seconds:.0f} s here"
    if seconds > NOTICE - SPARE:
        log.warning(
            "%s, more than the %.0f s that clusters give after SIGTERM: such an end costs what was learnt since the "
            "newest state by the clock",
            words,
            NOTICE,
        )
    else:
        log.info("%s", words)
