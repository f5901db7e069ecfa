"""Words for the frontend in other languages."""

import asyncio

from aiohttp import web

from ..content.locales import translations
from ..studio import STUDIO


async def show(request: web.Request) -> web.Response:
    return web.json_response(await asyncio.to_thread(translations, request.app[STUDIO].folders.locales))


ROUTES = (("GET", "/i18n", show),)
