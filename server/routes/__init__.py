"""The HTTP and WebSocket API, one file a subject. Each has a table of (method, path, handler)."""

from collections.abc import Awaitable, Callable

from aiohttp import web

from . import (
    blueprints,
    datasets,
    files,
    jobs,
    locales,
    logs,
    prompt,
    queue,
    runs,
    settings,
    socket,
    static,
    system,
    templates,
    thumbnails,
    userdata,
)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

LAST = ("/{path:.*}",)
"""Patterns that match everything; they have to be asked last."""


def add_all(router: web.UrlDispatcher) -> None:
    """Every route at /x and at /api/x, as in ComfyUI."""
    tables = (
        prompt,
        queue,
        jobs,
        socket,
        files,
        logs,
        settings,
        userdata,
        templates,
        blueprints,
        system,
        locales,
        runs,
        thumbnails,
        datasets,
        static,
    )
    for table in tables:
        for method, path, handler in table.ROUTES:
            if path not in LAST:
                router.add_route(method, f"/api{path}", handler)
            router.add_route(method, path, handler)
