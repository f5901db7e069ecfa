"""A training by several processes, started from one program: Accelerate's launcher beside it, and its run told of here.

The processes run the workflow as ``accelerate launch -m comfyui_rollout run`` does, as far as it leads to the training.
What they do is read from the run's folder, which only the first of them writes: nothing else needs to go to and fro.
"""

from __future__ import annotations

import json
import logging
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from PIL import Image

from ...hosts.host import Host
from ..metrics_file import METRICS, row_in
from ..pictures.kept import PICTURE, step_of
from ..run_folder import facts_in
from .logs import logs_in, parsed

log = logging.getLogger(__name__)

PACKAGE = "comfyui_rollout"
LOOK_EVERY = 0.5
"""Seconds between two looks at the run's folder."""
TO_STOP = 120.0
"""Seconds that the processes have to keep their state once they are asked to stop; then they are ended."""


KILLED = re.compile(r"rank +: (\d+) \(.*\n.*\n.*\n.*: Signal \d+ \((\w+)\)")
"""How torch's launcher names a process that a signal has ended, and the signal."""


class LaunchFailed(RuntimeError):
    """The processes failed; the message is theirs."""


def configuration(count: int) -> dict[str, Any]:
    """Accelerate's, for so many GPUs of this machine."""
    return {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": "MULTI_GPU",
        "num_machines": 1,
        "num_processes": count,
        "machine_rank": 0,
        "main_process_port": 0,  # any that is free
        "mixed_precision": "no",  # the workflow says it
    }


def launcher(count: int, device: str, folder: Path) -> list[str]:
    """The command that starts so many processes of a module; its files are in the folder.

    Accelerate's launcher leaves several processes on a CPU to MPI: there it is torch's own, which Accelerate joins too.
    """
    if device == "cpu":
        return [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    (folder / "accelerate.json").write_text(json.dumps(configuration(count)), encoding="utf-8")
    return [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(folder / "accelerate.json")]


def leading_to(prompt: Mapping[str, Any], node_id: str) -> dict[str, Any]:
    """The nodes that a node needs, and itself."""
    needed: dict[str, Any] = {}
    ahead = [node_id]
    while ahead:
        name = ahead.pop()
        if name in needed or name not in prompt:
            continue
        needed[name] = prompt[name]
        ahead += [value[0] for value in prompt[name]["inputs"].values() if isinstance(value, list) and value]
    return needed


def train_launched(
    prompt: Mapping[str, Any], node_id: str, count: int, *, device: str, host: Host, resumed: Path | None
) -> Path:
    """Train what leads to that Optimizer Step with ``count`` processes; returns the run's folder.

    Raises ValueError where they cannot be started, LaunchFailed with the message of one that failed, and what the host
    raises where the user stops: the processes have kept what was learnt by then.
    """
    if find_spec(PACKAGE) is None:
        raise ValueError("processes: several need this pack as a package: pip install -e . in its folder, or set 1")
    inputs = prompt[node_id]["inputs"]
    with tempfile.TemporaryDirectory(prefix="rollout-launch-") as name:
        here = Path(name)
        (here / "prompt.json").write_text(json.dumps(leading_to(prompt, node_id)), encoding="utf-8")
        run = Launched(host, node_id, int(inputs["steps"]), here / "prompt.json", resumed)
        command = [
            *launcher(count, device, here),
            *("-m", PACKAGE, "run", str(here / "prompt.json"), "--output", str(host.output_folder), "--device", device),
        ]
        with (here / "log").open("wb") as words, started([*command, "--no-wait"], words) as process:
            while process.poll() is None:
                time.sleep(LOOK_EVERY)
                run.look()
                host.check_interrupted()
        run.look()
        if process.returncode:
            raise LaunchFailed(run.message() or last_words(here / "log"))
    if run.folder is None:
        raise LaunchFailed("the processes ended and left no run")
    return run.folder


@contextmanager
def started(command: list[str], words: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A program of its own session; whatever happens inside, it has ended afterwards."""
    process = subprocess.Popen(command, stdout=words, stderr=words, start_new_session=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(TO_STOP)
            except subprocess.TimeoutExpired:
                process.kill()


def last_words(log: Path) -> str:
    """The error that the processes said last, in a line; or which of them could not say it, as the launcher does."""
    text = log.read_text(encoding="utf-8", errors="replace")
    lines = text.splitlines()
    said = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    said = said or [f"process {rank} was ended from outside ({name})" for rank, name in KILLED.findall(text)]
    return (said or lines or ["the processes ended without a word"])[-1]


class Launched:
    """Tells a host of a run that other processes train, as they leave it in its folder."""

    def __init__(self, host: Host, node_id: str, steps: int, prompt: Path, folder: Path | None) -> None:
        self.host, self.node_id, self.steps, self.prompt = host, node_id, steps, prompt
        self.folder, self.shown = folder, set[Path]()
        self.tails: dict[Path, Tail] = {}
        if folder is not None:  # what was there before is no news
            files = (folder / METRICS, *logs_in(folder).values())
            self.tails |= {path: Tail(path, size_of(path)) for path in files}
            self.shown |= set(pictures_in(folder))

    def look(self) -> None:
        """Tell what is new."""
        self.folder = self.folder or self._find()
        if self.folder is None:
            return
        for rank, path in logs_in(self.folder).items():
            for level, said in map(parsed, self._new(path)):
                log.log(level, "process %d: %s", rank, said)
        rows = [row for line in self._new(self.folder / METRICS) if (row := row_in(line)) is not None]
        if rows:
            self.host.metrics(self.node_id, rows)
            self.host.progress(self.node_id, rows[-1]["step"] + 1, self.steps)
        for path in pictures_in(self.folder):
            if path not in self.shown:
                self.shown.add(path)
                self._show(path)

    def message(self) -> str:
        """What the run says it has failed with."""
        return str(facts_in(self.folder).get("message", "")) if self.folder else ""

    def _find(self) -> Path | None:
        """The run that was started with our prompt."""
        for path in (self.host.output_folder / "rollout").glob("*/run.json"):
            if str(self.prompt) in facts_in(path.parent).get("command", []):
                return path.parent
        return None

    def _new(self, path: Path) -> list[str]:
        return self.tails.setdefault(path, Tail(path)).lines()

    def _show(self, path: Path) -> None:
        node = path.name.rpartition("_step_")[0]
        if path.name.endswith("_frames.png"):
            if path.is_relative_to(self.host.output_folder):
                where = path.parent.relative_to(self.host.output_folder).as_posix()
                files = {"subfolder": where, "image": path.name, "data": path.with_suffix(".json").name}
                self.host.send("rollout.frames", {"node": node, "step": step_of(path), **files})
            return
        with Image.open(path) as picture:
            picture.load()
            self.host.show(node, path.parent.name, step_of(path), picture.copy())


@dataclass
class Tail:
    """A file that others write, read as it grows."""

    path: Path
    read: int = 0
    """Bytes."""

    def lines(self) -> list[str]:
        """Whole lines that were added."""
        size = size_of(self.path)
        if size < self.read:
            self.read = 0  # it went back
        if size == self.read:
            return []
        with self.path.open("rb") as file:
            file.seek(self.read)
            new = file.read()
        new = new[: new.rfind(b"\n") + 1]
        self.read += len(new)
        return new.decode("utf-8", errors="replace").splitlines(keepends=True)


def pictures_in(folder: Path) -> list[Path]:
    """The pictures that the run has shown, the oldest first."""
    found = [path for kind in ("samples", "rollouts") for path in (folder / kind).glob("*.png")]
    return sorted((path for path in found if PICTURE.fullmatch(path.name)), key=step_of)


def size_of(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
