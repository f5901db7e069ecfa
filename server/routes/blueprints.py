"""Our blueprints: graphs folded into one node."""

from aiohttp import web

from ..content.blueprints import about, blueprints, text_of
from ..studio import STUDIO
from .templates import PACK, lines_for


async def index(request: web.Request) -> web.Response:
    found = blueprints(request.app[STUDIO].folders.blueprints)
    return web.json_response({name: about(path, PACK, lines_for(request)) for name, path in found.items()})


async def show(request: web.Request) -> web.Response:
    """A blueprint with its file, as text; ``null`` for an unknown one, as ComfyUI answers."""
    path = blueprints(request.app[STUDIO].folders.blueprints).get(request.match_info["id"])
    if path is None:
        return web.json_response(None)
    lines = lines_for(request)
    return web.json_response({**about(path, PACK, lines), "data": text_of(path, lines)})


ROUTES = (
    ("GET", "/global_subgraphs", index),
    ("GET", "/global_subgraphs/{id}", show),
)
