"""Small copies of pictures of the input, output and temp folders."""

import asyncio
from pathlib import Path

from aiohttp import web

from ..content.files import send_file
from ..content.images import NotAnImage
from ..guard.bodies import BadBody
from ..pictures.thumbnails import SIDES, thumbnail
from ..studio import STUDIO
from .files import named


async def show(request: web.Request) -> web.StreamResponse:
    """The picture that a query as of /view names."""
    return await small_copy(request, named(request))


async def small_copy(request: web.Request, path: Path) -> web.StreamResponse:
    """A picture, at most as many pixels long as the query's ``side`` says."""
    side = request.query.get("side", "")
    if side not in map(str, SIDES):
        raise BadBody(f"side must be one of {', '.join(map(str, SIDES))}")
    folders = request.app[STUDIO].folders
    try:
        small = await asyncio.to_thread(thumbnail, path, int(side), folders.thumbnails)
    except NotAnImage as error:
        raise BadBody(str(error), 415) from error
    return send_file(small)


ROUTES = (("GET", "/rollout/thumbnail", show),)
