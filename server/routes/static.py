"""The frontend, our extension for it, and the nodes' help pages."""

import re
from pathlib import Path

from aiohttp import web

from ..content.files import send_file, walk
from ..guard.inside import inside
from ..studio import STUDIO

PACK = "comfyui-rollout"
HASHED = "public, max-age=86400"
"""The frontend's assets have their version in their name."""
HELP = re.compile(r"docs/(?P<node>[^/]+?)(/[A-Za-z-]+)?\.md")


async def front_page(request: web.Request) -> web.StreamResponse:
    path = request.app[STUDIO].folders.frontend / "index.html"
    return send_file(path, "no-store, must-revalidate")


async def extensions(request: web.Request) -> web.Response:
    """The modules that the frontend is to load."""
    folder = request.app[STUDIO].folders.web
    modules = [path.relative_to(folder).as_posix() for path in walk(folder) if path.suffix == ".js"]
    return web.json_response([f"/extensions/{PACK}/{name}" for name in modules])


async def extension_file(request: web.Request) -> web.StreamResponse:
    """A file of our extension, or the help of a node."""
    folder, name = request.app[STUDIO].folders.web, request.match_info["path"]
    path = inside(folder, name)
    page = HELP.fullmatch(name)
    return _help(request, page["node"]) if page and not path.is_file() else send_file(path, "no-store")


async def help_page(request: web.Request) -> web.StreamResponse:
    """Help for a node that the frontend takes for one of ComfyUI's own."""
    return _help(request, request.match_info["node"].removesuffix(".md"))


def _help(request: web.Request, node: str) -> web.StreamResponse:
    """A node's help in the one language there is. Of a node without a page the frontend shows the description: it
    does so for an empty page, too, and an empty page leaves no error in the browser's console.
    """
    studio = request.app[STUDIO]
    path = inside(studio.folders.web / "docs", f"{node}.md")
    if not path.is_file() and node in studio.mapping:
        return web.Response(content_type="text/markdown")
    return send_file(path, "no-store")


async def frontend_file(request: web.Request) -> web.StreamResponse:
    base: Path = request.app[STUDIO].folders.frontend
    name = request.match_info["path"]
    return send_file(inside(base, name), HASHED if name.startswith("assets/") else "no-cache")


ROUTES = (
    ("GET", "/", front_page),
    ("GET", "/extensions", extensions),
    ("GET", f"/extensions/{PACK}/{{path:.+}}", extension_file),
    ("GET", "/docs/{node}", help_page),
    ("GET", "/docs/{node}/{locale}", help_page),
    ("GET", "/{path:.*}", frontend_file),
)
