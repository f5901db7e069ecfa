"""One process's failure is everybody's: all end within seconds, with the words of the one that failed.

Without it, those that are left would wait in a collective for as long as its timeout lasts, and tell of that.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any

FAILED = "failed"
BEAT = 0.5
"""Seconds between two looks, and between two signs of life."""
GRACE = 5.0
"""Seconds in which a process may end by itself once another has failed."""
SILENT = 4.0
"""Seconds without a sign of life after which the one who left others alone in a collective is known."""


class OtherProcessFailed(RuntimeError):
    """Another process failed, and so this one must end; the message is that one's."""


class Watch:
    """A thread that looks whether all others are well, in the launcher's own store (``MASTER_ADDR``)."""

    def __init__(self, rank: int, count: int, run: str, note: Callable[[str], None]) -> None:
        self.rank, self.count, self.note = rank, count, note
        self.store = store_of(run)
        self.is_cause = False
        self.knows = False
        """Whether the main thread has heard, and ends by itself."""
        self.seen: dict[int, tuple[str, float]] = {}
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._watch, name="rollout-watch", daemon=True)

    def __enter__(self) -> Watch:
        self.thread.start()
        return self

    def __exit__(self, *reason: object) -> None:
        self.over.set()
        self.thread.join(2 * GRACE)

    def _watch(self) -> None:
        beat = 0
        while not self.over.wait(BEAT):
            beat += 1
            words = self.words(beat)
            if words and not self.knows:
                self._end(words)

    def words(self, beat: int = 0) -> str:
        """What another process has failed with; empty where all are well."""
        try:
            if beat:
                self.store.set(f"beat {self.rank}", str(beat))
            return self.store.get(FAILED).decode() if self.store.check([FAILED]) else ""
        except Exception:  # the store lives in the first process, or in the launcher
            return "the first process, or the launcher, ended without a word"

    def _end(self, words: str) -> None:
        """The main thread waits in a collective for somebody who is gone; it may find out by itself."""
        if self.over.wait(GRACE) or self.knows:
            return
        self.note(words)
        os._exit(1)

    def cause_of(self, error: BaseException) -> BaseException:
        """What to raise: the error itself, told to all, or what another one has failed with before."""
        self.knows = True
        if self.is_cause or isinstance(error, OtherProcessFailed):
            return error
        broken = is_of_a_collective(error)
        until = time.monotonic() + (2 * SILENT if broken else 0)
        words = self.words()
        while broken and not words and time.monotonic() < until:
            time.sleep(BEAT)
            words = self.words() or self._silent()
        if words:
            return OtherProcessFailed(words)
        self.is_cause = True
        said = str(error) or type(error).__name__
        self._tell(f"process {self.rank}: {said}" if self.rank else said)
        return error

    def _silent(self) -> str:
        """Who has given no sign of life for a while."""
        now = time.monotonic()
        for rank in range(self.count):
            key = f"beat {rank}"
            beat = self.store.get(key).decode() if self.store.check([key]) else ""
            if self.seen.get(rank, ("", 0.0))[0] != beat or rank not in self.seen:
                self.seen[rank] = beat, now
            elif rank != self.rank and now - self.seen[rank][1] > SILENT:
                words = f"process {rank} ended without a word: it was killed, or ran out of memory"
                self._tell(words)
                return words
        return ""

    def _tell(self, words: str) -> None:
        try:
            self.store.compare_set(FAILED, "", words)
        except Exception:  # nobody is left to hear it
            return


def store_of(run: str) -> Any:
    """The launcher's store, with keys of this run."""
    from torch.distributed import PrefixStore, TCPStore

    store = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
    return PrefixStore(f"rollout {run}", store)


def is_of_a_collective(error: BaseException | None) -> bool:
    """Whether an error, or what it came from, is that of an exchange in which somebody was missing."""
    while error is not None:
        words = str(error).lower()
        if type(error).__name__.startswith("Dist") or any(part in words for part in ("gloo", "nccl", "by peer")):
            return True
        error = error.__cause__ or error.__context__
    return False
