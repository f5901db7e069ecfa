"""Jobs as the frontend's queue and history want them."""

from collections.abc import Iterator, Mapping
from typing import Any

from ..guard.bodies import BadBody
from .job import Job
from .job_queue import JobQueue

STATUSES = ("pending", "in_progress", "completed", "failed", "cancelled")
LONGEST_TEXT = 1024  # characters of a text shown as a job's preview
MOST_LISTED = 1000
VISUAL = ("images", "video", "gifs", "3d")


def list_jobs(jobs: JobQueue, query: Mapping[str, str]) -> dict[str, Any]:
    """The page of jobs that a query asks for. Raises BadBody for values that make no sense."""
    statuses = [status for status in query.get("status", "").split(",") if status] or list(STATUSES)
    unknown = [status for status in statuses if status not in STATUSES]
    if unknown:
        raise BadBody(f"status: {unknown[0]!r} is none of {', '.join(STATUSES)}")
    found = [job for job in _all(jobs) if job.status in statuses]
    if "workflow_id" in query:
        found = [job for job in found if job.workflow_id == query["workflow_id"]]
    if "sort_by" in query or "sort_order" in query:
        found = _sorted(found, query.get("sort_by", "created_at"), query.get("sort_order", "desc"))
    offset, limit = _whole(query, "offset", 0), min(_whole(query, "limit", MOST_LISTED), MOST_LISTED)
    page = found[offset : offset + limit]
    more = offset + len(page) < len(found)
    pagination = {"offset": offset, "limit": limit, "total": len(found), "has_more": more}
    return {"jobs": [job_item(job) for job in page], "pagination": pagination}


def _all(jobs: JobQueue) -> list[Job]:
    """What runs, what waits, then what is done, newest first."""
    running = jobs.running
    return [*([running] if running else []), *jobs.pending, *reversed(jobs.history)]


def _sorted(jobs: list[Job], by: str, order: str) -> list[Job]:
    keys = {
        "created_at": lambda job: job.extra_data["create_time"],
        "execution_duration": lambda job: (job.ended or 0) - (job.started or 0),
    }
    if by not in keys or order not in ("asc", "desc"):
        raise BadBody("sort_by must be created_at or execution_duration, sort_order asc or desc")
    return sorted(jobs, key=keys[by], reverse=order == "desc")


def _whole(query: Mapping[str, str], name: str, default: int) -> int:
    text = query.get(name, str(default))
    if not (text.isascii() and text.isdigit()) or len(text) > 9:
        raise BadBody(f"{name} must be a whole number, not {text!r}")
    return int(text)


def job_item(job: Job) -> dict[str, Any]:
    """One line of the list. The frontend drops the whole list if one field of one job is not what it expects."""
    files = list(_files(_outputs(job)))
    item = {
        "id": job.id,
        "status": job.status,
        "priority": job.number,
        "create_time": job.extra_data["create_time"],
        "execution_start_time": job.started,
        "execution_end_time": job.ended,
        "execution_error": job.result.error if job.result else None,
        "outputs_count": len(files),
        "previewable_outputs_count": sum(kind in VISUAL for _, kind, _ in files),
        "preview_output": _preview(_outputs(job), files),
        "workflow_id": job.workflow_id,
    }
    return {name: value for name, value in item.items() if value is not None}


def job_detail(job: Job) -> dict[str, Any]:
    return job_item(job) | {
        "outputs": _outputs(job),
        "execution_status": _ending(job),
        "workflow": {"prompt": job.prompt, "extra_data": job.extra_data},
    }


def history_entry(job: Job) -> dict[str, Any]:
    """A done job as other clients of ComfyUI's API want it."""
    meta = job.result.meta if job.result else {}
    return {"prompt": queue_entry(job), "outputs": _outputs(job), "status": _ending(job), "meta": meta}


def queue_entry(job: Job) -> list[Any]:
    return [job.number, job.id, job.prompt, job.extra_data, job.outputs]


def _outputs(job: Job) -> dict[str, dict[str, Any]]:
    return job.result.outputs if job.result else {}


def _ending(job: Job) -> dict[str, Any]:
    is_success = job.status == "completed"
    return {"status_str": "success" if is_success else "error", "completed": is_success, "messages": job.messages}


def _files(outputs: dict[str, dict[str, Any]]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(node id, media type, item) of everything that is a file."""
    for node_id, ui in outputs.items():
        for kind, items in ui.items():
            for item in items if isinstance(items, list | tuple) else ():
                if isinstance(item, dict) and isinstance(item.get("filename"), str):
                    yield node_id, kind, item


def _preview(outputs: dict[str, dict[str, Any]], files: list[tuple[str, str, dict[str, Any]]]) -> dict[str, Any] | None:
    """What stands for the job in a list: a saved picture, else a passing one, else the first text."""
    pictures = [file for file in files if file[1] in VISUAL]
    for node_id, kind, item in sorted(pictures, key=lambda file: file[2].get("type") != "output"):
        return {**item, "nodeId": node_id, "mediaType": kind}
    for node_id, ui in outputs.items():
        for text in ui.get("text", ()):
            if isinstance(text, str):
                cut = {"truncated": True} if len(text) > LONGEST_TEXT else {}
                return {"content": text[:LONGEST_TEXT], "nodeId": node_id, "mediaType": "text", **cut}
    return None
