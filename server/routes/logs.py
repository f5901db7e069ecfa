"""The logs panel."""

from aiohttp import web

from ..guard.bodies import BadBody, read_object
from ..studio import STUDIO


async def text(request: web.Request) -> web.Response:
    return web.json_response(request.app[STUDIO].logs.text())


async def raw(request: web.Request) -> web.Response:
    return web.json_response(request.app[STUDIO].logs.raw())


async def subscribe(request: web.Request) -> web.Response:
    """From now on, or no longer, send the client each new line as a `logs` message."""
    studio, wish = request.app[STUDIO], await read_object(request)
    sid = wish.get("clientId")
    if not isinstance(sid, str):
        raise BadBody("clientId must be a text")
    if wish.get("enabled") and studio.audience.knows(sid):
        studio.logs.subscribers.add(sid)
    else:
        studio.logs.subscribers.discard(sid)
    return web.Response()


ROUTES = (
    ("GET", "/internal/logs", text),
    ("GET", "/internal/logs/raw", raw),
    ("PATCH", "/internal/logs/subscribe", subscribe),
)
