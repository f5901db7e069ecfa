"""What the frontend asks about the server itself."""

import os
import platform
import sys
from typing import Any

from aiohttp import web

from ...graph import object_info
from ..studio import STUDIO
from .files import LARGEST_UPLOAD

# The frontend looks for newer releases on the net unless it is told that there are no nodes that need it.
ARGUMENTS = ("comfyui-rollout", "serve", "--disable-api-nodes")
COMFYUI = "0.33.0"  # whose API this is


def flags() -> dict[str, Any]:
    return {
        "supports_preview_metadata": True,
        "max_upload_size": LARGEST_UPLOAD,
        "node_replacements": False,
        "assets": False,
        "show_signin_button": False,
        "enable_telemetry": False,
        "partner_run_gate_enabled": False,
        "extension": {"manager": {"supports_v4": False}},
    }


async def features(request: web.Request) -> web.Response:
    return web.json_response(flags())


async def users(request: web.Request) -> web.Response:
    """One user, whose things are kept on the server."""
    return web.json_response({"storage": "server", "migrated": True})


async def definitions(request: web.Request) -> web.Response:
    """Every node, or the one that is named; computed anew, as the choices of a widget may depend on files."""
    studio = request.app[STUDIO]
    name = request.match_info.get("node_class")
    mapping = studio.mapping if name is None else {key: node for key, node in studio.mapping.items() if key == name}
    with studio.looking():
        return web.json_response(object_info(mapping, studio.display_names))


async def statistics(request: web.Request) -> web.Response:
    studio = request.app[STUDIO]
    total, available = memory()
    is_cpu = studio.device == "cpu"
    device = {
        "name": studio.device,
        "type": studio.device.split(":")[0],
        "index": 0,
        "vram_total": total if is_cpu else 0,
        "vram_free": available if is_cpu else 0,
        "torch_vram_total": 0,
        "torch_vram_free": 0,
    }
    system = {
        "os": platform.system().lower(),
        "ram_total": total,
        "ram_free": available,
        "comfyui_version": COMFYUI,
        "python_version": sys.version,
        "pytorch_version": studio.versions.get("torch", ""),
        "embedded_python": False,
        "argv": ARGUMENTS,
    }
    return web.json_response({"system": system, "devices": [device]})


def memory() -> tuple[int, int]:
    """Bytes of memory in all and free; zeros where the system does not tell."""
    try:
        page = os.sysconf("SC_PAGE_SIZE")
        return os.sysconf("SC_PHYS_PAGES") * page, os.sysconf("SC_AVPHYS_PAGES") * page
    except (AttributeError, ValueError, OSError):
        return 0, 0


async def empty_object(request: web.Request) -> web.Response:
    return web.json_response({})


async def empty_list(request: web.Request) -> web.Response:
    return web.json_response([])


async def folder_paths(request: web.Request) -> web.Response:
    """No folder of models is looked into; what is trained here is opened by its path."""
    return web.json_response({})


ROUTES = (
    ("GET", "/features", features),
    ("GET", "/users", users),
    ("GET", "/object_info", definitions),
    ("GET", "/object_info/{node_class}", definitions),
    ("GET", "/system_stats", statistics),
    ("GET", "/node_replacements", empty_object),
    ("GET", "/embeddings", empty_list),
    ("GET", "/experiment/models", empty_list),
    ("GET", "/experiment/models/{folder}", empty_list),
    ("GET", "/models", empty_list),
    ("GET", "/models/{folder}", empty_list),
    ("GET", "/internal/folder_paths", folder_paths),
)
