"""The queue and the history, as ComfyUI's older clients use them, and stopping."""

from typing import Any

from aiohttp import web

from ..guard.bodies import BadBody, read_object
from ..jobs.job_list import history_entry, queue_entry
from ..sockets.plain_json import to_text
from ..studio import STUDIO


async def show_queue(request: web.Request) -> web.Response:
    jobs = request.app[STUDIO].jobs
    running = [queue_entry(jobs.running)] if jobs.running else []
    pending = [queue_entry(job) for job in jobs.pending]
    return web.json_response(text=to_text({"queue_running": running, "queue_pending": pending}))


async def change_queue(request: web.Request) -> web.Response:
    jobs, (clear, ids) = request.app[STUDIO].jobs, await _wish(request)
    if clear:
        jobs.delete()
    jobs.delete(ids)
    return web.Response()


async def show_history(request: web.Request) -> web.Response:
    jobs = request.app[STUDIO].jobs.history
    if "job_id" in request.match_info:
        jobs = [job for job in jobs if job.id == request.match_info["job_id"]]
    try:
        offset, most = int(request.query.get("offset", -1)), int(request.query.get("max_items", len(jobs)))
    except ValueError:
        raise BadBody("max_items and offset must be whole numbers") from None
    first = max(0, len(jobs) - most) if offset < 0 else offset
    page = jobs[first : first + max(0, most)]
    return web.json_response(text=to_text({job.id: history_entry(job) for job in page}))


async def change_history(request: web.Request) -> web.Response:
    jobs, (clear, ids) = request.app[STUDIO].jobs, await _wish(request)
    if clear:
        jobs.forget()
    jobs.forget(ids)
    return web.Response()


async def interrupt(request: web.Request) -> web.Response:
    """Stop the running job, or do nothing if the body names another one."""
    wish: dict[str, Any] = await read_object(request)
    request.app[STUDIO].jobs.interrupt(wish.get("prompt_id"))
    return web.Response()


async def free(request: web.Request) -> web.Response:
    """Forget what earlier jobs computed, before the next one runs."""
    wish = await read_object(request)
    if wish.get("unload_models") or wish.get("free_memory"):
        request.app[STUDIO].free()
    return web.Response()


async def _wish(request: web.Request) -> tuple[bool, list[str]]:
    wish = await read_object(request)
    ids = wish.get("delete") or []
    if not (isinstance(ids, list) and all(isinstance(job_id, str) for job_id in ids)):
        raise BadBody("delete must be a list of job ids")
    return bool(wish.get("clear")), ids


ROUTES = (
    ("GET", "/queue", show_queue),
    ("POST", "/queue", change_queue),
    ("GET", "/history", show_history),
    ("GET", "/history/{job_id}", show_history),
    ("POST", "/history", change_history),
    ("POST", "/interrupt", interrupt),
    ("POST", "/free", free),
)
