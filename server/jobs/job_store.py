"""Jobs on disk, so that queue and history are there again after the server ended, however it ended."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sqlite3
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ...graph import Result
from .job import Job, now

log = logging.getLogger(__name__)

FILE = ".jobs.sqlite"
TABLE = "CREATE TABLE IF NOT EXISTS jobs (id TEXT PRIMARY KEY, place INTEGER, state TEXT, record TEXT)"
FIELDS = ("number", "id", "prompt", "outputs", "extra_data", "size", "started", "ended", "messages")


class StoreTaken(Exception):
    """Another server keeps its jobs here."""


class JobStore:
    """One SQLite file that one server holds for as long as it lives. Safe to use from any thread.

    The lock is the system's: it ends with the process that holds it. So what the file says is running, and was not
    written by this server, is not running any more. The log is written ahead (WAL) and flushed with each change.
    """

    def __init__(self, path: Path) -> None:
        """Raises StoreTaken if another server holds it, sqlite3.Error or OSError if it cannot be used."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self.left_behind: list[Job] = []
        """The jobs that were running when the last server died."""
        self._connection = sqlite3.connect(path, timeout=0.5, isolation_level=None, check_same_thread=False)
        try:
            for command in ("locking_mode = EXCLUSIVE", "journal_mode = WAL", "synchronous = FULL"):
                self._connection.execute(f"PRAGMA {command}")
            self._connection.execute("BEGIN EXCLUSIVE")  # from now on the file is ours
            self._connection.execute(TABLE)
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._connection.close()
            if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
                raise StoreTaken from error
            raise

    def load(self) -> list[Job]:
        """All jobs in the order of their last change; those that ran when the last server died are interrupted."""
        with self._lock:
            rows = self._connection.execute("SELECT record FROM jobs ORDER BY place").fetchall()
        jobs = [job for (text,) in rows if (job := _read(text)) is not None]
        for job in jobs:
            if job.status == "in_progress":
                job.messages.append(("execution_interrupted", _left_behind(job)))
                job.end(Result("interrupted"))
                self.left_behind.append(job)
                self.save(job)
        return jobs

    def save(self, job: Job) -> None:
        """Write down how a job stands. A full disk stops no training: it is logged."""
        record = {name: getattr(job, name) for name in FIELDS}
        if job.result is not None:
            record["result"] = {name: getattr(job.result, name) for name in ("status", "outputs", "error", "meta")}
        text = json.dumps(record, default=str, skipkeys=True)
        self._write(
            "INSERT INTO jobs VALUES (?, (SELECT COALESCE(MAX(place), 0) + 1 FROM jobs), ?, ?) "
            "ON CONFLICT (id) DO UPDATE SET place = excluded.place, state = excluded.state, record = excluded.record",
            [(job.id, job.status, text)],
        )

    def remove(self, ids: Iterable[str]) -> None:
        self._write("DELETE FROM jobs WHERE id = ?", [(job_id,) for job_id in ids])

    def _write(self, statement: str, rows: list[tuple[str, ...]]) -> None:
        try:
            with self._lock, self._connection:
                self._connection.execute("BEGIN")
                self._connection.executemany(statement, rows)
        except sqlite3.Error as error:
            log.warning("the list of jobs cannot be written (%s): after a restart it lacks what changed now", error)

    def close(self) -> None:
        with self._lock, contextlib.suppress(sqlite3.Error):
            self._connection.close()


def open_store(path: Path) -> JobStore | None:
    """The store, made if need be; a broken one is put aside. None, with a line in the log, where there can be none."""
    try:
        try:
            return JobStore(path)
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):  # the file is well; the disk or a permission is not
                raise
            aside = path.with_name(f"{path.name}.broken-{now()}")
            log.warning("the list of jobs is broken (%s): it is kept as %s, and a new one begun", error, aside.name)
            os.replace(path, aside)
            return JobStore(path)
    except StoreTaken:
        log.warning(
            "another server works in %s: the jobs of this one are forgotten when it ends; "
            "give it a folder of its own with --output",
            path.parent,
        )
    except (sqlite3.Error, OSError) as error:
        log.warning("jobs cannot be kept in %s (%s): they are forgotten when the server ends", path.parent, error)
    return None


def _read(text: str) -> Job | None:
    """A job as it was written; None for a record of another version."""
    try:
        record: dict[str, Any] = json.loads(text)
        result = record.pop("result", None)
        record["messages"] = [(str(kind), data) for kind, data in record["messages"]]
        job = Job(**record)
        if result is not None:
            job.result = Result(**result)
            job.done.set()
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        log.warning("a job of an earlier time cannot be read and is left out")
        return None
    return job


def _left_behind(job: Job) -> dict[str, Any]:
    """ComfyUI's `execution_interrupted` for a job whose server died."""
    return {"prompt_id": job.id, "node_id": "", "node_type": "", "executed": [], "timestamp": now()}
