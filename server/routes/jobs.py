"""Jobs: what the frontend's queue and history are made of."""

from aiohttp import web

from ..guard.bodies import read_object
from ..jobs.job_list import job_detail, list_jobs
from ..sockets.plain_json import to_text
from ..studio import STUDIO
from .prompt import UUID

FRONTEND = "Comfy-User"
"""The header that the frontend sends with every request."""


async def show_all(request: web.Request) -> web.Response:
    listed = list_jobs(request.app[STUDIO].jobs, request.query)
    if FRONTEND in request.headers:
        for job in listed["jobs"]:
            if job["status"] == "cancelled":  # the frontend announces one that has an end time as "Job failed"
                job.pop("execution_end_time", None)
    return web.json_response(text=to_text(listed))


async def show_one(request: web.Request) -> web.Response:
    job = request.app[STUDIO].jobs.find(request.match_info["job_id"])
    if job is None:
        return web.json_response({"error": "Job not found"}, status=404)
    return web.json_response(text=to_text(job_detail(job)))


async def assets(request: web.Request) -> web.Response:
    """Files are found through the job's outputs; there is no separate store of them."""
    return web.json_response({"assets": [], "pagination": {"offset": 0, "limit": 0, "total": 0, "has_more": False}})


async def cancel_one(request: web.Request) -> web.Response:
    return _cancel(request, [request.match_info["job_id"]])


async def cancel_several(request: web.Request) -> web.Response:
    ids = (await read_object(request)).get("job_ids")
    if not isinstance(ids, list) or not ids:
        return web.json_response({"error": "job_ids must be a list of job ids", "invalid_ids": []}, status=400)
    return _cancel(request, ids)


def _cancel(request: web.Request, ids: list[object]) -> web.Response:
    """Cancelling twice, or what is done already, is no error."""
    invalid = [job_id for job_id in ids if not isinstance(job_id, str) or not UUID.fullmatch(job_id)]
    if invalid:
        return web.json_response({"error": "job ids must be canonical UUIDs", "invalid_ids": invalid}, status=400)
    jobs = request.app[STUDIO].jobs
    done = [jobs.cancel(str(job_id)) for job_id in ids]
    return web.json_response({"cancelled": any(done)})


ROUTES = (
    ("GET", "/jobs", show_all),
    ("POST", "/jobs/cancel", cancel_several),
    ("GET", "/jobs/{job_id}", show_one),
    ("GET", "/jobs/{job_id}/assets", assets),
    ("POST", "/jobs/{job_id}/cancel", cancel_one),
)
