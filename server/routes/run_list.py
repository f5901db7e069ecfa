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


async def answer_as_guest(request: web.Request, routes: Iterable[Route], where: RunList) -> web.StreamResponse:
    """The reply of the route of that method and path, on another server: our checks and replies to failures come along.

    The path has to begin as all of these do, with ``{name}`` for a run and ``{part}`` for what is asked of it.
    """
    path = "/rollout/runs" + "/{name}" * ("name" in request.match_info)
    path += f"/{request.match_info['part']}" if "part" in request.match_info else ""
    found = {method: handler for method, known, handler in routes if known == path}
    if request.method not in found:
        return web.json_response({"error": "not found"}, status=405 if found else 404)
    request[GUEST] = where
    reply = await answer_failures(request, found[request.method])
    for name in ("X-Content-Type-Options", "Cross-Origin-Resource-Policy"):
        reply.headers.setdefault(name, HEADERS[name])
    reply.headers.setdefault("Cache-Control", "no-store")
    return reply
