"""Files that are away for a moment: network drives and folders that are being synchronised lose them for seconds."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from torch import Generator

from ..data import Batch, Dataset
from ..names import name_of

log = logging.getLogger(__name__)

WAITS = (0.5, 1.0, 2.0)
"""Seconds before a file is tried again, each time."""
MOST_MISSING = 32
"""Items that may be left out in a run, because their files stayed away; one more ends it."""

Value = TypeVar("Value")


def patiently(read: Callable[[], Value]) -> Value:
    """Read, and try again where the system says no."""
    for wait in WAITS:
        try:
            return read()
        except Exception as error:
            if not is_of_the_system(error):
                raise
            time.sleep(wait)
    return read()


def is_of_the_system(error: BaseException | None) -> bool:
    """Whether an error, or what it came from, is one of reading files."""
    while error is not None:
        if isinstance(error, OSError):
            return True
        error = error.__cause__ or error.__context__
    return False


class PatientReader:
    """Reads batches; an item whose file stays away has another one of its batch in its place, and is named."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset, self.info = dataset, dataset.info
        self.missing: set[int] = set()

    def batch(self, items: list[int], generators: Sequence[Generator]) -> Batch:
        """As the data set's. Raises its error where too many files stayed away, or all of a batch."""
        try:
            return patiently(lambda: self.dataset.batch(items, generators))
        except Exception as error:
            if not is_of_the_system(error):
                raise
            there = [place for place in range(len(items)) if self._is_there(items[place], generators[place])]
            self.missing |= {items[place] for place in range(len(items)) if place not in there}
            if not there or len(self.missing) > MOST_MISSING:
                raise
            stand_in = [place if place in there else there[place % len(there)] for place in range(len(items))]
        chosen = [generators[place] for place in stand_in]
        return self.dataset.batch([items[place] for place in stand_in], chosen)

    def _is_there(self, item: int, generator: Generator) -> bool:
        try:
            self.dataset.batch([item], [generator])
        except Exception as error:
            if not is_of_the_system(error):
                raise
            log.warning("left out, for it cannot be read: %s: %s", name_of(self.dataset, item), error)
            return False
        return True
