"""Our own routes in ComfyUI's server: runs, data sets and small copies of pictures, for the same web extension."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from aiohttp import web

from .content.folders import Folders
from .content.runs import OwnJobs
from .guard.headers import answer_failures
from .guard.inside import inside
from .pictures.datasets import Datasets, Survey
from .routes import Handler, datasets, runs, thumbnails
from .routes.datasets import DATASETS
from .studio import STUDIO


@dataclass(frozen=True)
class Guest:
    """What stands in for a studio where ComfyUI is the server, has the queue and trains."""

    folders: Folders
    own_jobs: OwnJobs = field(default_factory=OwnJobs)
    """None: which run is going on, its folder tells."""


def add_routes(
    host: Any, pack: Path, output: str, input: str, temp: str, user: str, survey: Survey | None = None
) -> None:
    """Add them to ``host``, ComfyUI's PromptServer, before it starts; the folders are ComfyUI's own."""
    places = {"output": output, "input": input, "temp": temp, "user": user}
    folders = Folders(
        frontend=pack / "web",
        web=pack / "web",
        workflows=pack / "workflows",
        **{name: Path(place) for name, place in places.items()},
    )
    host.app[STUDIO] = Guest(folders)
    host.app[DATASETS] = Datasets(folders.datasets, survey)
    for method, path, handler in (*runs.ROUTES, *thumbnails.ROUTES, *datasets.ROUTES):
        host.routes.route(method, path)(answering(handler))
    for what, path in paths_of_an_odd_folder(pack.name).items():
        served = folders.web if what == "extensions" else folders.workflows
        host.routes.get(path)(answering(file_in(served)))


def paths_of_an_odd_folder(name: str) -> dict[str, str]:
    """Where ComfyUI's own routes to a pack's files fail, because the pack's folder has a space or the like in its name.

    By what is asked for: ``extensions`` or ``workflow_templates``. They match no other pack. Nothing for plain names.
    """
    if quote(name) == name:
        return {}
    only = re.escape(name)
    return {what: f"/{what}/{{pack:{only}}}/{{path:.+}}" for what in ("extensions", "workflow_templates")}


def file_in(folder: Path) -> Handler:
    """Answers with a file of ours, where ComfyUI does not find it."""

    async def answer(request: web.Request) -> web.StreamResponse:
        path = inside(folder, request.match_info["path"])
        return web.FileResponse(path) if path.is_file() else web.json_response({"error": "not found"}, status=404)

    return answer


def answering(handler: Handler) -> Handler:
    """The handler with our own replies where it fails."""

    async def answer(request: web.Request) -> web.StreamResponse:
        return await answer_failures(request, handler)

    return answer
