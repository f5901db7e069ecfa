"""Small copies of pictures of the input, output and temp folders."""

import asyncio

from aiohttp import web

from ..content.files import send_file
from ..content.images import NotAnImage
from ..guard.bodies import BadBody
from ..pictures.thumbnails import SIDES, thumbnail
from ..studio import STUDIO
from .files import named


async def show(request: web.Request) -> web.StreamResponse:
    """The picture that a query as of /view names, at most ``side`` pixels long."""
    side = request.query.get("side", "")
    if side not in map(str, SIDES):
        raise BadBody(f"side must be one of {', '.join(map(str, SIDES))}")
    folders = request.app[STUDIO].folders
    try:
        small = await asyncio.to_thread(thumbnail, named(request), int(side), folders.thumbnails)
    except NotAnImage as error:
        raise BadBody(str(error), 415) from error
    return send_file(small)


ROUTES = (("GET", "/rollout/thumbnail", show),)
