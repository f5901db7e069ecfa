"""A run on the terminal: what it says, how it is stopped, and how it ended."""

from __future__ import annotations

import errno
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

FAILED = 1
STOPPED = 130


NOISY = ("torchao", "torch.utils._pytree", "diffusers.quantizers")
"""Loggers that warn of what no user of ours has asked for: diffusers loads torchao wherever it is installed."""


def mute_libraries() -> None:
    """Let these libraries say errors only, before our own first word."""
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)


def say(text: str, file: TextIO | None = None) -> None:
    """Print a line at once, if anybody still reads: a closed terminal or a pipe to ``head`` stops no training."""
    with suppress(OSError, ValueError):
        print(text, file=file or sys.stdout, flush=True)


def is_closed_pipe(error: OSError) -> bool:
    """Whether somebody like ``head`` stopped reading what we print."""
    return isinstance(error, BrokenPipeError) or (os.name == "nt" and error.errno == errno.EINVAL)


def let_go_of_closed_pipes() -> None:
    """Python flushes when it ends, and would complain of a pipe that nobody reads any more."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        except (ValueError, AttributeError):  # closed, or none at all
            pass


@contextmanager
def stopping(stop: threading.Event) -> Iterator[None]:
    """The first ctrl-C (or SIGTERM) asks the run to stop after its step; the second one ends the program."""

    def ask(number: int, frame: Any) -> None:
        if stop.is_set():
            signal.default_int_handler(number, frame)
        stop.set()
        say("\nstopping after this step; ctrl-C again to give up at once", sys.stderr)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Terminal:
    """Tells a run on the terminal: a progress bar with loss, steps per second and time left, and what nodes say.

    ``classes`` are the classes of the prompt's nodes by id, ``trainer`` is the class whose steps are counted, and
    ``named`` gives the name of a class that people read.
    """

    def __init__(self, classes: dict[str, str], trainer: str, named: Callable[[str], str], output: Path) -> None:
        self.classes, self.trainer, self.named, self.output = classes, trainer, named, output
        self.bar: Any = None

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *reason: object) -> None:
        self._close_bar()

    def _close_bar(self) -> None:
        if self.bar is not None:
            with suppress(OSError, ValueError):
                self.bar.close()

    def __call__(self, event: str, data: dict[str, Any]) -> None:
        """A listener of a run; where nobody reads what it writes any more, the run goes on in silence."""
        with suppress(OSError):
            self._hear(event, data)

    def _hear(self, event: str, data: dict[str, Any]) -> None:
        if event == "progress" and self.classes.get(data["node"]) == self.trainer:
            self._move(data["value"], data["max"])
        elif event == "rollout.metrics" and self.bar is not None:
            loss = data["rows"][-1]["loss"]
            self.bar.set_postfix(loss="not finite" if loss is None else f"{loss:.4f}", refresh=False)
        elif event == "rollout.resumed":
            self._say(data["node"], {"text": [data["text"]]})
        elif event == "executed":
            self._say(data["node"], data["output"])

    def _move(self, value: int, maximum: int) -> None:
        from tqdm import tqdm

        if self.bar is None or value < self.bar.n:
            # A resumed run begins in the middle, and those steps were not done now.
            self.bar = tqdm(total=maximum, initial=value - 1, unit="step", dynamic_ncols=True, file=sys.stderr)
        self.bar.update(value - self.bar.n)

    def _say(self, node_id: str, ui: dict[str, Any]) -> None:
        self._close_bar()
        name = f"node {node_id} ({self.named(self.classes.get(node_id, ''))})"
        pictures = [str(self.output / image["subfolder"] / image["filename"]) for image in ui.get("images", [])]
        for line in [*ui.get("text", []), *pictures]:
            say(f"{name}: {line}")

    def conclude(self, result: Any, traceback: bool) -> int:
        """Say how it ended, if not well; returns the exit code."""
        if result.status == "success":
            return 0
        if result.status == "interrupted":
            say("stopped; what was learnt so far is saved in the run's folder", sys.stderr)
            return STOPPED
        if traceback:
            say("".join(result.error["traceback"]), sys.stderr)
        message = result.error["exception_message"].strip()
        node = f"node {result.error['node_id']} ({self.named(result.error['node_type'])})"
        # An error in a training step names the node in which it happened itself.
        say(f"error: {message if message.startswith('node ') else f'{node}: {message}'}", sys.stderr)
        return FAILED
