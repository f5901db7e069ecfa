"""Training runs, for our extension: list, curves, files, workflow, delete. Files themselves go through /view."""

import asyncio

from aiohttp import web

from ..content.run_notes import Conflict, write_notes
from ..content.runs import delete_run, describe_run, is_live, list_files, list_runs, read_rows, run_folder
from ..guard.bodies import BadBody, parse, read_object
from ..sockets.plain_json import to_text
from ..studio import STUDIO

MOST_ROWS = 20_000


async def show_all(request: web.Request) -> web.Response:
    runs = await asyncio.to_thread(list_runs, request.app[STUDIO].folders.runs, request.app[STUDIO].own_jobs)
    return web.json_response(text=to_text({"runs": runs}))


async def show_one(request: web.Request) -> web.Response:
    folder = run_folder(request.app[STUDIO].folders.runs, request.match_info["name"])
    return web.json_response(text=to_text(describe_run(folder, request.app[STUDIO].own_jobs)))


async def metrics(request: web.Request) -> web.Response:
    """Rows after a step (by default all); `more` says that others follow, to be asked for after the last of these."""
    folder = run_folder(request.app[STUDIO].folders.runs, request.match_info["name"])
    try:
        after, most = int(request.query.get("after", -1)), int(request.query.get("limit", MOST_ROWS))
    except ValueError:
        raise BadBody("after and limit must be whole numbers") from None
    rows, more = await asyncio.to_thread(read_rows, folder, after, max(1, min(most, MOST_ROWS)))
    return web.json_response(text=to_text({"rows": rows, "more": more}))


async def files(request: web.Request) -> web.Response:
    folders = request.app[STUDIO].folders
    folder = run_folder(folders.runs, request.match_info["name"])
    return web.json_response({"files": await asyncio.to_thread(list_files, folder, folders.output)})


async def workflow(request: web.Request) -> web.Response:
    """The workflow of a run, for the canvas."""
    folder = run_folder(request.app[STUDIO].folders.runs, request.match_info["name"])
    found = parse((folder / "workflow.json").read_bytes())
    return web.json_response(text=to_text(found))


async def annotate(request: web.Request) -> web.Response:
    """Tags and note of a run, with ``was``, those that were seen; 409 tells what somebody else wrote meanwhile."""
    folder = run_folder(request.app[STUDIO].folders.runs, request.match_info["name"])
    asked = await read_object(request)
    try:
        now = await asyncio.to_thread(write_notes, folder, asked, asked.get("was"))
    except Conflict as conflict:
        return web.json_response({"error": str(conflict), "now": conflict.now}, status=409)
    except ValueError as error:
        raise BadBody(str(error)) from error
    return web.json_response(now)


async def delete(request: web.Request) -> web.Response:
    """Remove a run with all it left behind; refused (409) while it is running."""
    folder = run_folder(request.app[STUDIO].folders.runs, request.match_info["name"])
    if is_live(folder, request.app[STUDIO].own_jobs):
        return web.json_response({"error": "the run is still going; stop it first"}, status=409)
    await asyncio.to_thread(delete_run, folder)
    return web.Response(status=204)


ROUTES = (
    ("GET", "/rollout/runs", show_all),
    ("GET", "/rollout/runs/{name}", show_one),
    ("GET", "/rollout/runs/{name}/metrics", metrics),
    ("GET", "/rollout/runs/{name}/files", files),
    ("GET", "/rollout/runs/{name}/workflow", workflow),
    ("PUT", "/rollout/runs/{name}/notes", annotate),
    ("DELETE", "/rollout/runs/{name}", delete),
)
