"""What watching costs: the quickstart trains in a server while 20 browsers come and go, and one socket is never read.

One run, in blocks of steps with and without the 20 clients, in turn; the clients are a program of their own, so that
only the server's part is counted. Bounds: a step with clients takes at most 5% longer (median of the ratios to the
blocks before and after), and messages worth 200 MB for a socket that is never read leave less than 32 MB behind.
The ratio wants a machine that is otherwise idle; the share of a core that the server's thread uses does not.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import torch
from comfyui_rollout import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS
from comfyui_rollout.graph import load, object_info, to_prompt, validate
from comfyui_rollout.hosts.current import hosted_by
from comfyui_rollout.hosts.events import EventHost
from comfyui_rollout.server import Folders, Studio, application, listening_socket, serving
from comfyui_rollout.server.sockets.messages import Message
from report import conclude, table

ROOT = Path(__file__).resolve().parents[1]
CLIENTS, BLOCK, PAIRS = 20, 6, 40
FLOOD, PAYLOAD = 2000, 100_000
FLAGS = {"type": "feature_flags", "data": {"supports_preview_metadata": True}}


def prompt(steps: int) -> dict:
    """The quickstart with more to see than usual (pictures every 10 steps) and a small network: the shorter a step, the
    more it feels what goes on beside it."""
    found = to_prompt(
        load(ROOT / "workflows" / "quickstart_digits.json"),
        object_info(NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS),
    )
    (trainer,) = (node for node in found.values() if node["class_type"] == "RolloutOptimizerStep")
    trainer["inputs"] |= {"steps": steps, "preview_every": 10, "sample_every": 0}
    for node in found.values():
        node["inputs"] |= {"RolloutNewModel": {"width": 16}, "RolloutDigitsDataset": {"batch_size": 16}}.get(
            node["class_type"], {}
        )
    return found


@contextmanager
def studio_in(folder: Path) -> Iterator[tuple[Studio, int]]:
    """A server on a free port, and its studio."""

    @contextmanager
    def hosted(executor, stop):
        reports = {name: getattr(executor, name) for name in ("progress", "preview", "finish", "send")}
        with hosted_by(EventHost(folder / "output", "cpu", **reports, interrupted=stop.is_set)):
            yield

    folders = Folders(**{name: folder / name for name in Folders.__dataclass_fields__})
    studio = Studio(NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS, folders, hosted)
    with listening_socket("127.0.0.1", 0) as opened, serving(application(studio), opened):
        yield studio, opened.getsockname()[1]


def upgrade(port: int, sid: str, small: bool = False) -> socket.socket:
    """A WebSocket's raw socket."""
    opened = socket.socket()
    if small:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    opened.connect(("127.0.0.1", port))
    opened.sendall(
        f"GET /ws?clientId={sid} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    return opened


def be_clients(port: int) -> None:
    """The program of the 20 clients: on "on" they connect and read all they are sent, on "off" they go.

    They read in bulk, so that they take next to no time from the training that is measured.
    """
    sockets: list[socket.socket] = []
    flags = json.dumps(FLAGS).encode()

    def read() -> None:
        while True:
            for opened in list(sockets):
                with contextlib.suppress(BlockingIOError, OSError):
                    opened.recv(1 << 20)
            time.sleep(0.1)

    threading.Thread(target=read, daemon=True).start()
    for line in sys.stdin:
        while sockets:
            sockets.pop().close()
        for number in range(CLIENTS if line.strip() == "on" else 0):
            opened = upgrade(port, f"client{number}")
            opened.sendall(bytes((0x81, 0x80 | len(flags), 0, 0, 0, 0)) + flags)  # masked with zeros
            opened.setblocking(False)
            sockets.append(opened)
        print("ok", flush=True)


def measure_clients(folder: Path) -> tuple[list[float], list[float], float]:
    """Seconds a step of each block, without and with the clients, and the share of a core that the server's thread
    used while they were there: what the training loses at most, if nothing else competes."""
    stamps: list[float] = []
    moved = threading.Condition()

    def observe(kind: str, data: dict) -> None:
        if kind == "progress" and data["node"] == trainer:
            with moved:
                stamps.append(time.perf_counter())
                moved.notify()

    def wait_for(count: int) -> None:
        with moved:
            moved.wait_for(lambda: len(stamps) >= count, 300)

    found = prompt(100_000)
    trainer = next(key for key, node in found.items() if node["class_type"] == "RolloutOptimizerStep")
    checked = validate(found, NODE_CLASS_MAPPINGS)
    seconds: dict[bool, list[float]] = {False: [], True: []}
    used = spent = 0.0
    with studio_in(folder) as (studio, port):
        command = [sys.executable, __file__, "--clients", str(port)]
        clients = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert clients.stdin is not None
        assert clients.stdout is not None
        job = studio.submit(checked.prompt, checked.outputs, observer=observe)
        wait_for(BLOCK)
        for block in range(2 * PAIRS + 1):
            is_on = block % 2 == 1
            clients.stdin.write("on\n" if is_on else "off\n")
            clients.stdin.flush()
            clients.stdout.readline()
            begin = len(stamps) + 5
            wait_for(begin)
            used_before, before = server_seconds(), time.perf_counter()
            wait_for(begin + BLOCK + 1)
            if is_on:
                used, spent = used + server_seconds() - used_before, spent + time.perf_counter() - before
            steps = [after - before for before, after in pairwise(stamps[begin:])][:BLOCK]
            seconds[is_on].append(statistics.fmean(steps))
            assert len(studio.audience) == (CLIENTS if is_on else 0)
        studio.jobs.interrupt()
        job.done.wait(60)
        clients.stdin.close()
        clients.wait(10)
    return seconds[False], seconds[True], used / spent


def server_seconds() -> float:
    """CPU time of the server's thread."""
    (thread,) = (thread for thread in threading.enumerate() if thread.name == "server")
    assert thread.ident is not None
    return time.clock_gettime(time.pthread_getcpuclockid(thread.ident))


def measure_unread(folder: Path) -> float:
    """MB by which the process grows while one socket that is never read is sent 200 MB."""
    with studio_in(folder) as (studio, port):
        opened = upgrade(port, "unread", small=True)
        while not studio.audience.knows("unread"):
            time.sleep(0.01)
        before = memory()
        sent = threading.Event()

        def flood() -> None:
            for number in range(FLOOD):
                payload = str(number).rjust(PAYLOAD)
                studio.on_loop(
                    lambda text=payload: studio.audience.send(Message("progress", {"x": text}, ("progress",)))
                )
                if number % 50 == 0:
                    time.sleep(0.02)
            studio.on_loop(sent.set)

        flood()
        sent.wait(60)
        grown = memory() - before
        assert studio.audience.knows("unread"), "the socket was dropped before the measurement's end"
        opened.close()
    return grown


def memory() -> float:
    """MB of memory that the process holds now."""
    with Path("/proc/self/statm").open() as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> int:
    torch.set_num_threads(max(1, (os.cpu_count() or 2) - 1))  # one core is left to the 20 clients
    with tempfile.TemporaryDirectory() as folder:
        alone, watched, share = measure_clients(Path(folder, "clients"))
        grown = measure_unread(Path(folder, "unread"))
    neighbours = [(before + after) / 2 for before, after in pairwise(alone)]
    ratios = [busy / quiet for quiet, busy in zip(neighbours, watched, strict=True)]
    table(
        ("pair", "alone ms", f"{CLIENTS} clients ms", "ratio"),
        [(n, 1000 * a, 1000 * w, r) for n, (a, w, r) in enumerate(zip(neighbours, watched, ratios, strict=True))],
    )
    figures = {"slowdown": statistics.median(ratios) - 1, "server_share": share, "unread_socket_mb": max(0.0, grown)}
    return conclude(figures, {"slowdown": 0.05, "server_share": 0.05, "unread_socket_mb": 32.0}, {})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, metavar="PORT", help="be the clients of the server at this port")
    chosen = parser.parse_args()
    if chosen.clients is not None:
        be_clients(chosen.clients)
    else:
        sys.exit(main())
