"""What each of several processes says, kept in the run's folder: ``logs/process_0.log`` and so on."""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...hosts.processes import Processes

FOLDER = "logs"
LOGGER = __name__.rsplit(".", 3)[0]
"""The package's own logger, whatever name the package was loaded under."""
FORM, TIME = "%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S%z"

log = logging.getLogger(__name__)


class Kept(logging.FileHandler):
    """Writes where it can: a full disk stops nothing."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Say nothing of it."""


@contextmanager
def log_kept(folder: Path | None, processes: Processes) -> Iterator[None]:
    """What this process logs inside goes into its file of the run, and so does what it fails with.

    One process alone has no such file: what it says stands in its terminal, or in the editor's log.
    """
    if folder is None or processes.count == 1:
        yield
        return
    (folder / FOLDER).mkdir(exist_ok=True)
    kept = Kept(folder / FOLDER / f"process_{processes.rank}.log", encoding="utf-8")
    kept.setFormatter(logging.Formatter(FORM, TIME))
    logger = logging.getLogger(LOGGER)
    level = logger.level
    logger.addHandler(kept)
    logger.setLevel(logging.INFO)
    log.info("process %d of %d, on %s (%d)", processes.rank, processes.count, platform.node(), os.getpid())
    try:
        yield
    except BaseException as error:  # the terminal hears of it by another way
        said = f"ended by {type(error).__name__}: {error}"
        failure = (type(error), error, error.__traceback__) if isinstance(error, Exception) else None
        kept.handle(logger.makeRecord(logger.name, logging.ERROR, __file__, 0, said, (), failure))
        raise
    finally:
        logger.removeHandler(kept)
        logger.setLevel(level)
        kept.close()


def logs_in(folder: Path) -> dict[int, Path]:
    """The files of a run's processes, by rank."""
    found = (folder / FOLDER).glob("process_*.log")
    return {int(path.stem[8:]): path for path in sorted(found) if path.stem[8:].isdecimal()}


def parsed(line: str) -> tuple[int, str]:
    """Level and message of a line; one that goes on with a message of several lines is as it is."""
    _, level, message = [*line.rstrip("\n").split(" ", 2), "", ""][:3]
    number = logging.getLevelName(level)
    return (number, message) if isinstance(number, int) else (logging.INFO, line.rstrip("\n"))
