"""Queueing."""

import asyncio
import re
from typing import Any

from aiohttp import web

from ...graph import validate
from ..guard.bodies import BadBody, parse, read_bytes
from ..jobs.job_queue import QueueFull
from ..sockets.plain_json import to_text
from ..studio import STUDIO, Studio

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
MOST_NODES = 10_000
BAD_ID = (
    "prompt_id must be a UUID string in canonical lowercase hyphenated form; omit it to let the server generate one"
)


async def status(request: web.Request) -> web.Response:
    return web.json_response(request.app[STUDIO].status)


async def queue_prompt(request: web.Request) -> web.Response:
    """Validate a prompt and queue what of it can run."""
    studio = request.app[STUDIO]
    try:
        body = await read_bytes(request)
        data = parse(body) if body.strip() else {}
    except BadBody as error:
        return refuse("invalid_body", str(error), status=error.status)
    problem = _problem(studio, data)
    if problem is not None:
        return problem
    targets = data.get("partial_execution_targets")
    validation = await asyncio.to_thread(_validated, studio, data["prompt"], targets)
    if validation.error is not None:
        text = to_text({"error": validation.error, "node_errors": validation.node_errors})
        return web.json_response(text=text, status=400)
    extra_data = dict(data.get("extra_data") or {})
    if isinstance(data.get("client_id"), str):
        extra_data["client_id"] = data["client_id"]
    number, front = data.get("number"), bool(data.get("front"))
    number = -number if front and number is not None else number
    try:
        job = studio.submit(
            validation.prompt, validation.outputs, extra_data,
            job_id=data.get("prompt_id"), number=number, front=front, size=len(body),
        )  # fmt: skip
    except QueueFull:
        return refuse("queue_full", "Too many jobs are waiting", "cancel some of them, or wait", status=429)
    reply = {"prompt_id": job.id, "number": job.number, "node_errors": validation.node_errors}
    return web.json_response(text=to_text(reply))


def _validated(studio: Studio, prompt: dict[str, Any], targets: list[str] | None) -> Any:
    with studio.looking():
        return validate(prompt, studio.mapping, targets)


def _problem(studio: Studio, data: Any) -> web.Response | None:
    """What is wrong with the request itself, before its graph is looked at."""
    if not isinstance(data, dict):
        return refuse("invalid_body", "The body must be a JSON object")
    if data.get("prompt_id") is not None:
        job_id = data["prompt_id"]
        if not isinstance(job_id, str) or not UUID.fullmatch(job_id):
            return refuse("invalid_prompt_id", "prompt_id must be a valid UUID", BAD_ID)
        if studio.jobs.find(job_id) is not None:
            return refuse("invalid_prompt_id", "prompt_id is in use", "there is a job of this id already")
    if "prompt" not in data:
        return refuse("no_prompt", "No prompt provided", "No prompt provided")
    prompt, number = data["prompt"], data.get("number")
    if not isinstance(prompt, dict):
        return refuse("invalid_prompt", "The prompt must be an object of nodes by their id")
    if len(prompt) > MOST_NODES:
        return refuse("too_many_nodes", f"The prompt has more than {MOST_NODES} nodes", f"it has {len(prompt)}")
    if not all(isinstance(node, dict) and isinstance(node.get("inputs", {}), dict) for node in prompt.values()):
        return refuse("invalid_prompt", "Every node must be an object, and so must its inputs")
    if number is not None and (not isinstance(number, int | float) or isinstance(number, bool) or number != number):
        return refuse("invalid_number", "number must be a number")
    targets = data.get("partial_execution_targets")
    if targets is not None and not (isinstance(targets, list) and all(isinstance(item, str) for item in targets)):
        return refuse("invalid_targets", "partial_execution_targets must be a list of node ids")
    if not isinstance(data.get("extra_data") or {}, dict):
        return refuse("invalid_extra_data", "extra_data must be an object")
    return None


def refuse(kind: str, message: str, details: str = "", status: int = 400) -> web.Response:
    """A refusal in the shape that the frontend shows."""
    error = {"type": kind, "message": message, "details": details, "extra_info": {}}
    return web.json_response({"error": error, "node_errors": {}}, status=status)


ROUTES = (("GET", "/prompt", status), ("POST", "/prompt", queue_prompt))
