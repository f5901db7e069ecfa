"""The jobs that wait, the one that runs, and those that are done. Safe to use from any thread."""

import heapq
import itertools
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection

from .job import Job
from .job_store import JobStore

MOST_PENDING = 1000
MOST_HISTORY = 200
MOST_NUMBER = 2**53  # a number that a client gave may be anything; above this one ours do not go on from it
MOST_BYTES = 128 * 1024**2  # of the requests of all jobs that are remembered


class QueueFull(Exception):
    """Too many jobs wait already."""


class JobQueue:
    """A heap by number, then by arrival. ``changed`` is called, on whichever thread, whenever its length changes."""

    def __init__(self, changed: Callable[[], None] = lambda: None) -> None:
        self._changed = changed
        self._store: JobStore | None = None
        self._condition = threading.Condition()
        self._heap: list[tuple[float, int, Job]] = []
        self._arrivals = itertools.count()
        self._numbers = itertools.count()
        self._closed = False
        self.running: Job | None = None
        self._history: OrderedDict[str, Job] = OrderedDict()

    def restore(self, store: JobStore) -> list[Job]:
        """Take up the jobs of an earlier time, and write down from now on how each stands. Returns them.

        Called once, before the first job is taken; what was queued before that is written down, too.
        """
        jobs = store.load()
        with self._condition:
            self._store = store
            for job in jobs:
                if job.result is None:
                    heapq.heappush(self._heap, (job.number, next(self._arrivals), job))
                else:
                    self._history[job.id] = job
            self._trim()
            used = [math.ceil(abs(job.number)) for job in jobs if abs(job.number) < MOST_NUMBER]
            self._numbers = itertools.count(max(used, default=-1) + 1)
            self._condition.notify()
        return jobs

    def next_number(self, front: bool = False) -> int:
        """The number for a job that asks for none: behind all others, or before them."""
        number = next(self._numbers)
        return -number if front else number

    def put(self, job: Job) -> None:
        """Raises QueueFull."""
        with self._condition:
            if len(self._heap) >= MOST_PENDING or sum(job.size for job in self.pending) > MOST_BYTES:
                raise QueueFull
            self._save(job)
            heapq.heappush(self._heap, (job.number, next(self._arrivals), job))
            self._condition.notify()
        self._changed()

    def take(self) -> Job | None:
        """The next job, as soon as there is one; it runs from now on. None when the queue is closed."""
        with self._condition:
            while not self._heap and not self._closed:
                self._condition.wait()
            if self._closed:
                return None
            self.running = heapq.heappop(self._heap)[2]
            self.running.start()
            job = self.running
            self._save(job)
        self._changed()
        return job

    def finish(self, job: Job) -> None:
        """Move the running job, which has ended, into the history."""
        with self._condition:
            self.running = None
            self._history[job.id] = job
            self._save(job)
            self._trim()
        self._changed()

    def _trim(self) -> None:
        """Let go of the oldest jobs of a long history."""
        while len(self._history) > MOST_HISTORY or self._remembered() > MOST_BYTES:
            self._remove([self._history.popitem(last=False)[0]])

    def _save(self, job: Job) -> None:
        if self._store is not None:
            self._store.save(job)

    def _remove(self, ids: Collection[str]) -> None:
        if self._store is not None and ids:
            self._store.remove(ids)

    def _remembered(self) -> int:
        return sum(job.size for job in self._history.values()) if len(self._history) > 1 else 0

    def close(self) -> None:
        """No job starts any more."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()

    @property
    def remaining(self) -> int:
        with self._condition:
            return len(self._heap) + (self.running is not None)

    @property
    def pending(self) -> list[Job]:
        """In the order in which they will run."""
        with self._condition:
            return [job for _, _, job in sorted(self._heap, key=lambda entry: entry[:2])]

    @property
    def history(self) -> list[Job]:
        """Oldest first."""
        with self._condition:
            return list(self._history.values())

    def find(self, job_id: str) -> Job | None:
        with self._condition:
            known = [*self._history.values(), *self.pending, *([self.running] if self.running else [])]
        return next((job for job in known if job.id == job_id), None)

    def delete(self, ids: Collection[str] | None = None) -> bool:
        """Drop waiting jobs, by default all; True if there was one of them."""
        with self._condition:
            kept = [] if ids is None else [entry for entry in self._heap if entry[2].id not in ids]
            dropped = [job.id for *_, job in self._heap if ids is None or job.id in ids]
            self._remove(dropped)
            self._heap = kept
            heapq.heapify(self._heap)
        if dropped:
            self._changed()
        return bool(dropped)

    def forget(self, ids: Collection[str] | None = None) -> None:
        """Drop jobs from the history, by default all."""
        with self._condition:
            known = [job_id for job_id in (list(self._history) if ids is None else ids) if job_id in self._history]
            for job_id in known:
                self._history.pop(job_id, None)
            self._remove(known)

    def interrupt(self, job_id: str | None = None) -> bool:
        """Ask the running job to stop, if it is this one; True if it was asked."""
        with self._condition:
            job = self.running
            if job is None or (job_id is not None and job.id != job_id):
                return False
            job.interrupt.set()
            return True

    def cancel(self, job_id: str) -> bool:
        """Stop a job, or drop it if it only waits; True if there was something to do."""
        return self.delete([job_id]) or self.interrupt(job_id)
