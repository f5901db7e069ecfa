"""The web application around a studio."""

import logging
from collections.abc import AsyncIterator

from aiohttp import web

from .access import Access
from .bodies import LARGEST_BODY
from .headers import add_headers, answer_failures
from .messages import Message
from .routes import add_all
from .routes.datasets import DATASETS, datasets_of
from .studio import STUDIO, Studio

LOGGER = __name__.rsplit(".", 2)[0]
"""The package's own logger, whatever name the package was loaded under."""


def application(studio: Studio, access: Access | None = None) -> web.Application:
    """ComfyUI's API over this studio. It starts to work when the application starts, and ends with it."""
    rules = access or Access()
    app = web.Application(middlewares=[rules.middleware(), answer_failures], client_max_size=LARGEST_BODY)
    app[STUDIO] = studio
    app[DATASETS] = datasets_of(app)
    add_all(app.router)
    app.on_response_prepare.append(add_headers)
    app.cleanup_ctx.append(_log_kept)
    app.on_startup.append(_start)
    app.on_shutdown.append(_stop)
    return app


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
