"""The web application around a studio."""

import logging
import sys
from collections.abc import AsyncIterator

from aiohttp import web

from .guard.access import Access
from .guard.bodies import LARGEST_BODY
from .guard.headers import add_headers, answer_failures
from .pictures.datasets import Datasets, Survey
from .routes import add_all
from .routes.datasets import DATASETS
from .sockets.messages import Message
from .studio import STUDIO, Studio

LOGGER = __name__.rsplit(".", 2)[0]
"""The package's own logger, whatever name the package was loaded under."""


def application(studio: Studio, access: Access | None = None, survey: Survey | None = None) -> web.Application:
    """ComfyUI's API over this studio. It starts to work when the application starts, and ends with it.

    ``survey`` tells what the trainer would make of a folder of pictures.
    """
    rules = access or Access()
    app = web.Application(middlewares=[rules.middleware(), answer_failures], client_max_size=LARGEST_BODY)
    app[STUDIO] = studio
    app[DATASETS] = Datasets(studio.folders.datasets, survey)
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
    """While the application lives, its log also goes to the browsers that have the panel open, warnings to stderr."""
    studio = app[STUDIO]

    def show(line: dict[str, str]) -> None:
        if studio.logs.subscribers:
            message = Message("logs", {**studio.logs.raw(), "entries": [line]})
            studio.on_loop(lambda: studio.audience.send_to(studio.logs.subscribers, message))

    logger, studio.logs.added = logging.getLogger(LOGGER), show
    level, terminal = logger.level, logging.StreamHandler(sys.stderr)
    terminal.setLevel(logging.WARNING)
    terminal.setFormatter(Lowercase("%(levelname)s: %(message)s"))
    handlers: tuple[logging.Handler, ...] = (studio.logs, terminal)
    for handler in handlers:
        logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield
    for handler in handlers:
        logger.removeHandler(handler)
    logger.setLevel(level)


class Lowercase(logging.Formatter):
    """Lines like those of the command line: ``warning: ...``."""

    def format(self, record: logging.LogRecord) -> str:
        return super().format(logging.makeLogRecord({**record.__dict__, "levelname": record.levelname.lower()}))
