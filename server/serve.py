"""Put an application on the network: until the user stops it, or while something else runs."""

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

from aiohttp import web

from .studio import STUDIO

FRONTEND = "comfyui_frontend_package"
GRACE = 3.0  # seconds that open requests may take when the server ends


class CannotServe(Exception):
    """The server cannot start; the message is one line that says what to do."""


def frontend_folder() -> Path:
    """The static files of the installed frontend. Raises CannotServe."""
    found = find_spec(FRONTEND)
    folder = Path(found.origin).parent / "static" if found is not None and found.origin else None
    if folder is None or not (folder / "index.html").is_file():
        raise CannotServe('ComfyUI\'s frontend is not installed: pip install "comfyui-rollout[standalone]"')
    return folder


def listening_socket(address: str, port: int) -> socket.socket:
    """A socket that listens. Port 0 takes any free one. Raises CannotServe if the place is taken or not ours."""
    try:
        family, *_, place = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        opened = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise CannotServe(f"--listen {address}: {error.strerror or error}") from error
    try:
        if os.name == "posix":  # elsewhere this would let two servers share the port
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(place)
        opened.listen(128)
    except OSError as error:
        opened.close()
        if error.errno == errno.EADDRINUSE:
            raise CannotServe(f"port {port} is in use: choose another one with --port, or stop what uses it") from error
        raise CannotServe(f"cannot listen on {address} port {port}: {error.strerror}") from error
    opened.setblocking(False)
    return opened


def address_of(opened: socket.socket, token: str | None = None) -> str:
    """The address to open in a browser."""
    host, port = opened.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{shown}:{port}/" + (f"?token={token}" if token else "")


STOPS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT")
"""Ctrl-C, a service manager, a terminal that is closed, ctrl-backslash; Windows lacks some."""


async def serve(app: web.Application, opened: socket.socket, stopped: asyncio.Event, ready: Callable[[], None]) -> None:
    """Serve until ``stopped`` is set; then the running job is stopped, saves, and everything is closed."""
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)  # answer_failures has logged what matters
    # Packed bodies are refused by answer_failures, in JSON; unpacked here, they would be in the library's words.
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=GRACE, auto_decompress=False)
    await runner.setup()
    try:
        await web.SockSite(runner, opened).start()
        ready()
        await stopped.wait()
    finally:
        await runner.cleanup()


def serve_until_stopped(
    app: web.Application,
    opened: socket.socket,
    ready: Callable[[], None],
    asked: Callable[[int], None] = lambda number: None,
) -> None:
    """Serve until ctrl-C, a termination signal, or a terminal that is closed. Called on the main thread.

    ``asked`` hears which signal it was, before the running job is stopped. The second ctrl-C gives up at once. A
    signal that was ignored (nohup) stays ignored. The job is waited for as long as it saves; whatever else still works
    then (a look through a slow folder, a picture that is read) has a few seconds.
    """

    async def until_signal() -> None:
        stopped, loop = asyncio.Event(), asyncio.get_running_loop()

        def ask(number: int) -> None:
            if stopped.is_set() and number == signal.SIGINT:
                os._exit(130)
            if stopped.is_set():
                return
            asked(number)
            stopped.set()
            with contextlib.suppress(OSError):  # whoever read what we print may be gone
                saves = ": the running job saves what it learnt" if STUDIO in app and app[STUDIO].jobs.running else ""
                print(f"\nstopping{saves}; ctrl-C again to give up at once", flush=True)

        for number in (getattr(signal, name) for name in STOPS if hasattr(signal, name)):
            if number != signal.SIGINT and signal.getsignal(number) is signal.SIG_IGN:
                continue
            with contextlib.suppress(NotImplementedError):  # Windows; there ctrl-C raises KeyboardInterrupt
                loop.add_signal_handler(number, ask, number)
        loop.set_default_executor(Unwaited())
        await serve(app, opened, stopped, ready)

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(until_signal())


class Unwaited(ThreadPoolExecutor):
    """Threads for requests; a loop that ends does not wait for them: who asked is gone."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        super().shutdown(wait=False, cancel_futures=True)


def leave_within(seconds: float = GRACE) -> None:
    """The last word of a program: it ends then, if it has not by itself. Python would wait for all its threads."""
    timer = threading.Timer(seconds, os._exit, (0,))
    timer.daemon = True
    timer.start()


@contextlib.contextmanager
def serving(app: web.Application, opened: socket.socket) -> Iterator[None]:
    """Serve on a thread of its own while the block runs."""
    started, failure = threading.Event(), []
    loop, stopped = asyncio.new_event_loop(), asyncio.Event()

    def work() -> None:
        try:
            loop.run_until_complete(serve(app, opened, stopped, started.set))
        except BaseException as error:
            failure.append(error)
        finally:
            started.set()
            loop.close()

    thread = threading.Thread(target=work, name="server", daemon=True)
    thread.start()
    started.wait()
    try:
        if failure:
            raise failure[0]
        yield
    finally:
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(stopped.set)
        thread.join()
