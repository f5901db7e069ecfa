"""How a full disk is told from other errors: the system and the libraries that write for us word it differently."""

from __future__ import annotations

import errno
from collections.abc import Iterator

FULL = (errno.ENOSPC, errno.EDQUOT)
FULL_IN_WORDS = tuple(f"os error {number}" for number in (*FULL, 112))
"""As safetensors says it; 112 is Windows' ERROR_DISK_FULL."""


def is_full(error: BaseException) -> bool:
    """Whether an error, or what it came from, says that the disk is full."""
    return any(
        getattr(each, "errno", None) in FULL or any(words in str(each) for words in FULL_IN_WORDS)
        for each in chain_of(error)
    )


def chain_of(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it came from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
