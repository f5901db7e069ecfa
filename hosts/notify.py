"""A person's own command, started when a training has ended: a mail, a message, a sound."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

log = logging.getLogger(__name__)

LONGEST = 60.0
"""Seconds that the command may take."""


@dataclass(frozen=True)
class Ended:
    """A run that has ended."""

    folder: Path
    status: str
    """``finished``, ``interrupted`` or ``failed``, as in run.json."""
    message: str = ""


@dataclass
class Notifier:
    """Starts ``command`` in the system's shell, beside whatever goes on. What it does wrong is one line in the log."""

    command: str = ""
    _threads: list[threading.Thread] = field(default_factory=list)

    def tell(self, run: Ended) -> None:
        """The run is in the environment: ROLLOUT_RUN, ROLLOUT_STATUS, ROLLOUT_FOLDER and ROLLOUT_MESSAGE."""
        if not self.command:
            return
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        thread = threading.Thread(target=self._run, args=(run,), name="notify", daemon=True)
        self._threads.append(thread)
        thread.start()

    def wait(self, seconds: float = LONGEST) -> None:
        """Until what was told has been passed on, but no longer: before the program ends."""
        end = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))

    def _run(self, run: Ended) -> None:
        told = {"RUN": run.folder.name, "STATUS": run.status, "FOLDER": str(run.folder), "MESSAGE": run.message}
        environment = {f"ROLLOUT_{name}": value.replace("\0", "") for name, value in told.items()}
        try:
            process = subprocess.Popen(
                self.command, shell=True, env={**os.environ, **environment}, text=True, errors="replace",
                stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
            )  # fmt: skip
        except (OSError, ValueError) as error:
            log.warning("--notify: could not be started: %s", error)
            return
        try:
            _, said = process.communicate(timeout=LONGEST)
        except subprocess.TimeoutExpired:
            end_with_children(process)
            process.communicate()
            log.warning("--notify: ended after %g s, which is the limit", LONGEST)
            return
        if process.returncode:
            last = said.strip().splitlines()[-1:]
            log.warning("--notify: %s", ": ".join([f"failed with exit code {process.returncode}", *last]))


def end_with_children(process: subprocess.Popen[str]) -> None:
    """The shell and what it has started."""
    if os.name == "posix":
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
