"""The web application around a studio."""

import logging
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from aiohttp import web

from ..graph import object_info
from .guard.access import Access
from .guard.bodies import LARGEST_BODY
from .guard.headers import add_headers, answer_failures
from .pictures.datasets import Datasets, Survey
from .pictures.elsewhere import Elsewhere
from .routes import add_all
from .routes.datasets import DATASETS
from .sockets.messages import Message
from .studio import STUDIO, Studio

LOGGER = __name__.rsplit(".", 2)[0]
"""The package's own logger, whatever name the package was loaded under."""


def application(
    studio: Studio, access: Access | None = None, survey: Survey | None = None, pictures: Sequence[Path] = ()
) -> web.Application:
    """ComfyUI's API over this studio. It starts to work when the application starts, and ends with it.

    ``survey`` tells what the trainer would make of a folder of pictures; ``pictures`` are folders outside of the
    studio's own that may be looked at, beside those that its workflows name.
    """
    rules = access or Access()
    app = web.Application(middlewares=[rules.middleware(), answer_failures], client_max_size=LARGEST_BODY)
    app[STUDIO] = studio
    app[DATASETS] = Datasets(studio.folders.datasets, survey, _elsewhere(studio, pictures))
    add_all(app.router)
    app.on_response_prepare.append(add_headers)
    app.cleanup_ctx.append(_log_kept)
    app.on_startup.append(_start)
    app.on_shutdown.append(_stop)
    return app


def _elsewhere(studio: Studio, allowed: Sequence[Path]) -> Elsewhere:
    @cache
    def definitions() -> Mapping[str, Any]:
        with studio.looking():
            return object_info(studio.mapping, studio.display_names)

    def queued() -> Iterator[Mapping[str, Any]]:
        jobs, running = studio.jobs, studio.jobs.running
        return (job.prompt for job in (*([running] if running else []), *jobs.pending, *jobs.history))

    return Elsewhere(studio.folders.saved_workflows, definitions, queued, allowed)


async def _start(app: web.Application) -> None:
    app[STUDIO].start()


async def _stop(app: web.Application) -> None:
    await app[STUDIO].stop()


async def _log_kept(app: web.Application) -> AsyncIterator[None]:
    """While the application lives, its log also goes to the browsers that have the panel open."""
    studio = app[STUDIO]

    def show(line: dict[str, str]) -> None:
        if studio.logs.subscribers:
            message = Message("logs", {**studio.logs.raw(), "entries": [line]})
            studio.on_loop(lambda: studio.audience.send_to(studio.logs.subscribers, message))

    logger, studio.logs.added = logging.getLogger(LOGGER), show
    level = logger.level
    logger.addHandler(studio.logs)
    logger.setLevel(logging.INFO)
    yield
    logger.removeHandler(studio.logs)
    logger.setLevel(level)
