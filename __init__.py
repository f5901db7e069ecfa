"""ComfyUI-Rollout: train diffusion and flow-matching models on their own outputs, as a node graph."""

import sys
from functools import partial
from pathlib import Path
from typing import Any

from .nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS

__version__ = "0.1.0"

WEB_DIRECTORY = "./web"

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS", "WEB_DIRECTORY", "__version__"]


def _be_a_guest() -> None:
    """Inside ComfyUI, its server answers for our list of runs too; what does it is loaded when it is first asked."""
    from .hosts.comfyui_routes import add_routes, output_folder, paths_of_an_odd_folder, running_since

    async def runs(request: Any) -> Any:
        from .server.routes.run_list import RunList, answer_as_guest
        from .server.routes.runs import ROUTES

        where = RunList(output_folder() / "rollout", output_folder(), running_since)
        return await answer_as_guest(request, ROUTES, where)

    add_routes(("/rollout/runs", "/rollout/runs/{name}", "/rollout/runs/{name}/{part}"), runs)
    here = Path(__file__).parent
    for what, path in paths_of_an_odd_folder(here.name).items():
        add_routes([path], partial(_file, here / {"extensions": "web"}.get(what, "workflows")))


async def _file(folder: Path, request: Any) -> Any:
    """A file of ours, where ComfyUI does not find it."""
    from aiohttp import web

    from .server.headers import answer_failures
    from .server.inside import inside

    async def answer(request: web.Request) -> web.StreamResponse:
        path = inside(folder, request.match_info["path"])
        return web.FileResponse(path) if path.is_file() else web.json_response({"error": "not found"}, status=404)

    return await answer_failures(request, answer)


if getattr(sys.modules.get("server"), "PromptServer", None) is not None:
    _be_a_guest()
