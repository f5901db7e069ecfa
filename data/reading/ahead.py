"""Pictures decoded on several threads before they are asked for: Pillow and NumPy let others work meanwhile."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice, pairwise
from typing import TypeVar

MOST_THREADS = 8
"""Beyond these the disk is what is waited for, and what is decoded early takes memory."""

Thing = TypeVar("Thing")
Made = TypeVar("Made")


def threads() -> int:
    """As many as there are cores for this process, within reason."""
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(own, MOST_THREADS)


@contextmanager
def ahead(make: Callable[[Thing], Made], things: Iterable[Thing], workers: int = 0) -> Iterator[Iterator[Made]]:
    """``make`` of each thing, in their order, by ``workers`` threads (0 = :func:`threads`).

    At most twice as many as there are threads wait to be taken. What ``make`` raises is raised where its thing's turn
    is, whatever later ones do; who leaves early waits for those that are being made, and for no others.
    """
    workers = workers or threads()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="rollout-pictures")
    try:
        yield _in_order(pool, make, iter(things), 2 * workers)
    finally:
        pool.shutdown(cancel_futures=True)


def _in_order(
    pool: ThreadPoolExecutor, make: Callable[[Thing], Made], things: Iterator[Thing], most: int
) -> Iterator[Made]:
    waiting: deque[Future[Made]] = deque(pool.submit(make, thing) for thing in islice(things, most))
    while waiting:
        made = waiting.popleft().result()
        waiting.extend(pool.submit(make, thing) for thing in islice(things, 1))
        yield made


def together(make: Callable[[Thing], Made], things: Sequence[Thing]) -> list[Made]:
    """``make`` of each thing, in their order, by several threads: each takes a run of them, for many are small."""
    workers = min(threads(), len(things))
    if workers < 2:
        return [make(thing) for thing in things]
    ends = [len(things) * place // workers for place in range(workers + 1)]
    runs = [things[start:end] for start, end in pairwise(ends)]
    with ahead(lambda run: [make(thing) for thing in run], runs, workers) as made:
        return [one for run in made for one in run]
