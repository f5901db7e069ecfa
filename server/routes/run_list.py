"""Where the list of runs looks: the standalone server's own folders, or those of a host whose guest we are."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler

from ..headers import HEADERS, answer_failures
from ..studio import STUDIO

Route = tuple[str, str, Handler]


@dataclass(frozen=True)
class RunList:
    """What the runs' handlers need."""

    runs: Path
    """One folder a training run."""
    output: Path
    """The folder that /view shows files of; the runs lie below it."""
    live_since: Callable[[], float | None]
    """When what runs now began, in seconds; None while nothing does."""


GUEST = "rollout_run_list"
"""Where a request of a host's server keeps its RunList."""


def run_list(request: web.Request) -> RunList:
    """Whose runs a request asks for."""
    guest: RunList | None = request.get(GUEST)
    if guest is not None:
        return guest
    studio = request.app[STUDIO]

    def live_since() -> float | None:
        job = studio.jobs.running
        return None if job is None or job.started is None else job.started / 1000

    return RunList(studio.folders.runs, studio.folders.output, live_since)


def as_guest(routes: Iterable[Route], where: Callable[[], RunList]) -> list[Route]:
    """The routes for another server: our checks and our replies to failures come with them."""

    def guest(handler: Handler) -> Handler:
        async def answer(request: web.Request) -> web.StreamResponse:
            request[GUEST] = where()
            reply = await answer_failures(request, handler)
            for name in ("X-Content-Type-Options", "Cross-Origin-Resource-Policy"):
                reply.headers.setdefault(name, HEADERS[name])
            reply.headers.setdefault("Cache-Control", "no-store")
            return reply

        return answer

    return [(method, path, guest(handler)) for method, path, handler in routes]
