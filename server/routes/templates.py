"""Our workflows as templates."""

import re

from aiohttp import web

from ..content.files import send_file
from ..content.locales import spoken, template_lines
from ..content.templates import index, names, opened_anew, placeholder
from ..guard.inside import inside
from ..studio import STUDIO
from .settings import setting

PACK = "comfyui-rollout"
LANGUAGE = "Rollout.Language"
THUMBNAIL = re.compile(r"(.+?)(-\d)?\.jpg")


async def listed_by_pack(request: web.Request) -> web.Response:
    """Nothing: ours are in the index, with titles and pictures, and would be shown twice."""
    return web.json_response({})


def _lines(request: web.Request) -> dict[str, str]:
    """Of the person's language, which the frontend itself may not speak."""
    locales = request.app[STUDIO].folders.locales
    known = [path.name for path in locales.glob("*")]
    accepted = request.headers.get("Accept-Language", "")
    return template_lines(locales, spoken(setting(request, LANGUAGE), accepted, known))


async def show(request: web.Request) -> web.StreamResponse:
    """The index in any language, a workflow, or its thumbnail."""
    name, folder = request.match_info["name"], request.app[STUDIO].folders.workflows
    if re.fullmatch(r"index(\.[\w-]+)?\.json", name):
        return web.json_response(index(folder, _lines(request)))
    if name == "index_logo.json":
        return web.json_response({})
    thumbnail = THUMBNAIL.fullmatch(name)
    if thumbnail and thumbnail[1] in names(folder):
        path = inside(folder, f"{thumbnail[1]}.jpg")
        if path.is_file():
            return send_file(path)
        return web.Response(body=placeholder(thumbnail[1]), content_type="image/jpeg")
    path = inside(folder, name)
    return web.json_response(text=opened_anew(path)) if name.endswith(".json") else send_file(path)


ROUTES = (
    ("GET", "/workflow_templates", listed_by_pack),
    ("GET", f"/workflow_templates/{PACK}/{{name}}", show),
    ("GET", "/templates/{name}", show),
)
