"""The editor's settings, in one JSON file."""

from pathlib import Path
from typing import Any

from aiohttp import web

from ...files.whole import write_bytes
from ..guard.bodies import BadBody, parse, read_json, read_object
from ..sockets.plain_json import to_text
from ..studio import STUDIO

FILE = "comfy.settings.json"

DEFAULTS: dict[str, Any] = {
    "Comfy.Notification.ShowVersionUpdates": False,  # would look for releases on the net
    "Comfy.VersionCompatibility.DisableWarnings": True,  # this is no ComfyUI whose version could lag behind
    "Comfy.NodeBadge.ShowApiPricing": False,
    "Comfy.Workflow.NamedValuesRestore": True,  # a saved workflow survives a node that has got one more widget
    "LiteGraph.Canvas.MinFontSizeForLOD": 5,  # titles and values stay readable when a whole training graph is in view
}
"""What holds until the user says otherwise."""

NEVER_KEPT = ("Comfy.TutorialCompleted",)
"""With it set, a browser without a draft opens the frontend's own example graph, whose nodes are not here. Without it,
the frontend opens the templates, ours first."""


def _file(request: web.Request) -> Path:
    return request.app[STUDIO].folders.user / FILE


def _read(path: Path) -> dict[str, Any]:
    try:
        found = parse(path.read_bytes())
    except (OSError, BadBody):
        return {}
    return found if isinstance(found, dict) else {}


def _merge(path: Path, changes: dict[str, Any]) -> None:
    kept = {**_read(path), **{name: value for name, value in changes.items() if name not in NEVER_KEPT}}
    write_bytes(path, to_text(kept).encode(), durable=False)


def setting(request: web.Request, name: str) -> Any:
    """What the user has set, or what holds until then; None for what we do not know."""
    return {**DEFAULTS, **_read(_file(request))}.get(name)


async def show_all(request: web.Request) -> web.Response:
    return web.json_response({**DEFAULTS, **_read(_file(request))})


async def show_one(request: web.Request) -> web.Response:
    return web.json_response(setting(request, request.match_info["name"]))


async def change_all(request: web.Request) -> web.Response:
    _merge(_file(request), await read_object(request))
    return web.Response()


async def change_one(request: web.Request) -> web.Response:
    _merge(_file(request), {request.match_info["name"]: await read_json(request)})
    return web.Response()


ROUTES = (
    ("GET", "/settings", show_all),
    ("POST", "/settings", change_all),
    ("GET", "/settings/{name}", show_one),
    ("POST", "/settings/{name}", change_one),
)
