"""Our blueprints: graphs folded into one node."""

from aiohttp import web

from ..content.blueprints import about, blueprints
from ..studio import STUDIO
from .templates import PACK


async def index(request: web.Request) -> web.Response:
    found = blueprints(request.app[STUDIO].folders.blueprints)
    return web.json_response({name: about(path, PACK) for name, path in found.items()})


async def show(request: web.Request) -> web.Response:
    """A blueprint with its file, as text; ``null`` for an unknown one, as ComfyUI answers."""
    path = blueprints(request.app[STUDIO].folders.blueprints).get(request.match_info["id"])
    if path is None:
        return web.json_response(None)
    return web.json_response({**about(path, PACK), "data": path.read_text(encoding="utf-8")})


ROUTES = (
    ("GET", "/global_subgraphs", index),
    ("GET", "/global_subgraphs/{id}", show),
)
