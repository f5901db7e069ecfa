"""A folder that one program has for itself, for as long as that program lives."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LOCK = "run.lock"
LOOKS = 1.0
"""Seconds for which a lock is asked for: whoever only looks whether it is held has it for an instant."""


class Taken(ValueError):
    """Another program has the folder, or another part of this one."""


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """The folder is nobody else's inside. Raises Taken if it is somebody's; a program that died holds nothing.

    The system itself holds the lock and lets go of it when the program ends, however that is, also for others that
    see the folder from another container. Where the file system has no such locks, filelock asks whether the program
    that wrote the lock's file still runs.
    """
    lock = _lock(folder)
    with _acquired(lock, folder, LOOKS):
        yield


def is_held(folder: Path) -> bool:
    """Whether a program works in the folder now. Raises OSError where that cannot be asked, as on a read-only disk."""
    if not (folder / LOCK).exists():
        return False
    try:
        with _acquired(_lock(folder), folder, 0):
            return False
    except Taken:
        return True


def _lock(folder: Path) -> Any:
    from filelock import FileLock

    return FileLock(folder / LOCK)


@contextmanager
def _acquired(lock: Any, folder: Path, timeout: float) -> Iterator[None]:
    from filelock import Timeout

    try:
        lock.acquire(timeout=timeout)
    except Timeout:
        raise Taken(f"{folder} is in use by another program") from None
    try:
        yield
    finally:
        lock.release()


def this_program() -> dict[str, Any]:
    """Who we are, for people who find the folder locked: process, machine, and which start of that machine."""
    return {"pid": os.getpid(), "host": platform.node(), "boot": boot_id()}


def boot_id() -> str:
    """Another one after each start of the machine; empty where the system does not tell."""
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.is_file() else ""
