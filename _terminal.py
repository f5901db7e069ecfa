"""A run on the terminal: what it says, how it is stopped, and how it ended."""

from __future__ import annotations

import logging
import math
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

FAILED = 1
STOPPED = 130


NOISY = (
    *("torchao", "torch.utils._pytree", "diffusers.quantizers"),
    *("bitsandbytes.backends", "transformers.utils.import_utils"),
)
"""Loggers that warn of what no user of ours has asked for: diffusers loads torchao and bitsandbytes wherever they are
installed, and transformers misses torchvision wherever it is not."""


def mute_libraries() -> None:
    """Let these libraries say errors only, before our own first word."""
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", "Image size .* exceeds limit")  # Pillow takes a photograph for an attack


@contextmanager
def warnings_told() -> Iterator[None]:
    """What this package warns of inside stands in the terminal, a line each: ``warning: ...``."""
    logger, terminal = logging.getLogger(__name__.rpartition(".")[0]), BesideBars(sys.stderr)
    terminal.setLevel(logging.WARNING)
    terminal.setFormatter(Lowercase("%(levelname)s: %(message)s"))
    logger.addHandler(terminal)
    try:
        yield
    finally:
        logger.removeHandler(terminal)


class BesideBars(logging.StreamHandler):
    """Lines of their own: progress bars that are being drawn make way, and come back below."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm = sys.modules.get("tqdm")
        with tqdm.tqdm.external_write_mode(self.stream) if tqdm else nullcontext():
            super().emit(record)


class Lowercase(logging.Formatter):
    """Lines like those that the command line prints itself."""

    def format(self, record: logging.LogRecord) -> str:
        return super().format(logging.makeLogRecord({**record.__dict__, "levelname": record.levelname.lower()}))


class Lasting:
    """A stream whose reader may go away, as that of `| head` does: what is written then goes nowhere."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._gone = stream, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        self._try(lambda: self._stream.write(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def _try(self, write: Callable[[], Any]) -> None:
        if self._gone:
            return
        try:
            write()
        except (OSError, ValueError):  # ValueError: it was closed
            self._gone = True
            with suppress(OSError, ValueError):  # what is still buffered shall not fail when the program ends
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)


def open_missing() -> None:
    """Let standard streams that were closed (``>&-``, a service without a console) lead nowhere.

    Their numbers would be given to the next files that are opened, and what is meant for a terminal would end there.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the smallest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r+", encoding="utf-8"))  # noqa: SIM115


@contextmanager
def lasting_output() -> Iterator[None]:
    """Whatever is printed inside, by whomever, a reader who goes away, or who was never there, stops nothing."""
    open_missing()
    before = sys.stdout, sys.stderr
    for stream in before:  # a name in letters that the terminal or a log in its encoding lacks is no reader's end
        with suppress(AttributeError, OSError, ValueError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    sys.stdout, sys.stderr = Lasting(sys.stdout), Lasting(sys.stderr)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = before


STOPS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGBREAK")
"""Ctrl-C, a cluster's notice, a terminal that is closed, ctrl-backslash, and Windows' ctrl-break and closed window."""


NOTICES = {"SIGTERM": 30.0, "SIGBREAK": 5.0}
"""Seconds after which the program is ended, whatever it does: by a cluster, or by Windows when a window is closed."""


class Stop(threading.Event):
    """Asks a run to stop, and knows how long the program still has."""

    ends_at = math.inf

    def ask(self, number: int) -> None:
        """By the signal of that number: some are the last word before the program is ended from outside."""
        self.ends_at = time.monotonic() + NOTICES.get(signal.Signals(number).name, math.inf)
        self.set()

    def seconds_left(self) -> float:
        return self.ends_at - time.monotonic()


@contextmanager
def stopping(stop: Stop, told: bool = True) -> Iterator[None]:
    """The first of these signals asks the run to stop after its step; then a ctrl-C ends the program at once.

    ``told``: the terminal hears of it. That does no harm: files are whole or not there. A signal that was ignored
    (nohup) stays ignored.
    """

    def ask(number: int, frame: Any) -> None:
        if stop.is_set() and number == signal.SIGINT:
            tell_from_signal("\nleaving at once; the last state that was kept is whole\n")
            os._exit(STOPPED)
        if not stop.is_set():
            stop.ask(number)
            if told:
                tell_from_signal("\nstopping after this step; ctrl-C again to give up at once\n")

    numbers = [getattr(signal, name) for name in STOPS if hasattr(signal, name)]
    heard = [number for number in numbers if number == signal.SIGINT or signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, ask) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def tell_from_signal(words: str) -> None:
    """Tell the terminal, if there is one, from within a signal: no stream that may be in the middle of a write."""
    with suppress(OSError):
        os.write(2, words.encode())


def sources_of(node: Mapping[str, Any]) -> list[str]:
    """The nodes to which one is linked."""
    return [str(value[0]) for value in node.get("inputs", {}).values() if isinstance(value, list) and value]


class Terminal:
    """Tells a run on the terminal: a progress bar with loss, steps per second and time left, and what nodes say.

    ``prompt`` has the nodes by id, ``trainer`` is the class whose steps are counted, and ``named`` gives the name of a
    class that people read.
    """

    def __init__(self, prompt: Mapping[str, Any], trainer: str, named: Callable[[str], str], output: Path) -> None:
        self.classes = {node_id: node["class_type"] for node_id, node in prompt.items()}
        self.sources = {node_id: sources_of(node) for node_id, node in prompt.items()}
        self.trainer, self.named, self.output = trainer, named, output
        self.said: dict[str, list[str]] = {}
        """The lines of each node."""
        self.began = False
        """Whether there was a step."""
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

        self.began = True
        if self.bar is None or value < self.bar.n:
            # A resumed run begins in the middle, and those steps were not done now.
            self.bar = tqdm(total=maximum, initial=value - 1, unit="step", dynamic_ncols=True, file=sys.stderr)
        self.bar.update(value - self.bar.n)

    def _say(self, node_id: str, ui: dict[str, Any]) -> None:
        self._close_bar()
        name = f"node {node_id} ({self.named(self.classes.get(node_id, ''))})"
        pictures = [str(self.output / image["subfolder"] / image["filename"]) for image in ui.get("images", [])]
        self.said[node_id] = lines = [*ui.get("text", []), *pictures]
        above = {line for source in self.sources.get(node_id, ()) for line in self.said.get(source, ())}
        for line in lines:
            if line not in above:  # of the same pictures, say: on a canvas each node has its own, a list says it once
                print(f"{name}: {line}", flush=True)

    def conclude(self, result: Any, traceback: bool) -> int:
        """Say how it ended, if not well; returns the exit code."""
        if result.status == "success":
            return 0
        if result.status == "interrupted":
            learnt = "what was learnt so far is saved in the run's folder" if self.began else "nothing was trained yet"
            print(f"stopped; {learnt}", file=sys.stderr, flush=True)
            return STOPPED
        if traceback:
            print("".join(result.error["traceback"]), file=sys.stderr, flush=True)
        message = result.error["exception_message"].strip()
        node = f"node {result.error['node_id']} ({self.named(result.error['node_type'])})"
        # An error in a training step names the node in which it happened itself.
        print(f"error: {message if message.startswith('node ') else f'{node}: {message}'}", file=sys.stderr, flush=True)
        return FAILED
